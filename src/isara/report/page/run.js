// Draws the page of a run from its data.
const ROWS = D.rows, PAGE = 25, PAIRS = 6, CLIP = 300;
const modelName = (t) => (D.models.find((model) => model.t === t) || { name: `iteration ${t}` }).name;
// What became of a row, as its badge says it; what a person did comes after the filters.
const FATES = { seed: "seed", accepted: "accepted", edited: "edited by a person", rejected: "rejected by a person", dropped: "dropped" };
const HAS = Object.fromEntries(Object.keys(FATES).map((fate) => [fate, ROWS.some((row) => row.fate === fate)]));
const PASSED = HAS.edited || HAS.rejected ? "passed" : "accepted"; // by the filters

// ---- the story

function story() {
  const s = D.story, place = at("story");
  if (s.helped !== null) {
    at("story-h").replaceWith(el("h2", { id: "story-h", class: "verdict" }, "Has it helped? ",
      el("b", { class: s.helped ? "helped" : "open" }, s.helped ? "✓ Yes" : "Not shown")));
  }
  place.append(el("p", { class: "said" }, el("strong", {}, s.model.replace(/^the /, "The ")), `, aligned from ${plural(s.seeds, "question-answer pair")}. `, s.said.join(" ")));
  const gains = D.gains.filter((gain) => gain.t === s.chosen);
  if (gains.length) {
    place.append(el("h3", {}, `Iteration ${s.chosen} is better by … (${gains[0].measure}, 95 % intervals)`), ...gainLines(gains));
  }
  const tile = (value, label, open, size) => el("li", { class: size }, open
    ? el("button", { type: "button", onclick: open }, el("strong", {}, value), label)
    : el("div", {}, el("strong", {}, value), label));
  const share = s.candidates ? ` (${percent(s.accepted / s.candidates)})` : "";
  const tiles = [
    tile(count(s.seeds), "seed pairs", () => openRows({ fate: "seed" })),
    tile(count(s.candidates), `candidates in ${plural(s.iterations, "iteration")}`, () => openRows({})),
    tile(count(s.accepted), `accepted${PASSED === "passed" ? " by the filters" : ""}${share}`, () => openRows({ fate: PASSED })),
    tile(count(s.measured), `held-out pairs, measured on${s.rests === null || s.rests === s.measured ? "" : `; the verdict rests on ${count(s.rests)}`}`,
      D.heldout.length ? () => openAnswers({}) : null),
  ];
  const read = Object.entries(s.decided).map(([name, n], index) => [index ? ", " : "", link(`${count(n)} ${name}`, () => openRows({ read: name }))]);
  if (read.length) tiles.push(tile(read, s.known, null, "wide"));
  if (s.best_name !== null) tiles.push(tile(s.best_name, s.exported ? "is exported to final/" : "would be exported so far", null, "wide"));
  if (s.cost) {
    const change = s.cost.after / s.cost.before - 1;
    tiles.push(tile(`${change >= 0 ? "+" : "−"}${Math.abs(100 * change).toFixed(1)} %`,
      `cost elsewhere: bits per byte of a plain text, ${figure(s.cost.before)} → ${figure(s.cost.after)} (${s.cost.model}); more is forgetting`,
      () => jump("numbers"), "wide"));
  }
  place.append(el("ul", { class: "tiles" }, tiles));
  place.append(el("p", { class: "soft" }, `Licence of the seed pairs: ${s.licence || "not said"}. ` +
    `${s.iterations} of ${plural(s.planned, "iteration")} begun. All generated pairs are synthetic.`));
}

// What a figure on the held-out pairs is of: the answers, or the rows where nothing was answered. A gain is of two models.
const orRows = (t, changes) => D.heldout.length ? openAnswers(changes) : openRows(t > 0 ? { t } : {});
const toGain = (gain) => orRows(gain.t, { before: gain.rival, after: gain.t, show: "verdict" });
const OF_ANSWERS = { score: "verdict", score_demos: "verdict", answered: "verdict", rouge_l: "verdict", cut: "verdict", score_select: "chose" };
const toAnswers = (name) => (p) => orRows(p.t, { after: p.t === 0 && name.endsWith("_demos") ? "demos" : p.t, show: OF_ANSWERS[name] || "all" });

function gainLines(gains) {
  const ends = range(gains.flatMap((gain) => [gain.low, gain.high, gain.value, 0]), 0.02);
  return intervals(gains.map((gain) => ({ ...gain,
    label: [link(`than ${gain.over}`, () => toGain(gain)), gain.measure === gains[0].measure ? "" : el("span", { class: "soft" }, ` · ${gain.measure}`)],
    said: [`${change(gain.value)} [${change(gain.low)}, ${change(gain.high)}]`, el("span", { class: "soft" }, ` n ${gain.n}`)] })), 0, ends);
}

// ---- the funnel, kinds

function bar(label, value, share, kind, open) {
  return el("li", {}, link(label, open), el("span", { class: "number" }, value),
    svg("svg", { viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("rect", { class: "track", width: 100, height: 6 }),
      svg("rect", { class: `fill-${kind}`, width: Math.max(0, Math.min(1, share)) * 100, height: 6 })));
}

function funnel() {
  const blocks = D.funnel.map((it) => el("div", {}, el("h3", {}, `Iteration ${it.t}`), el("ul", { class: "bars" },
    bar("candidates", count(it.candidates), 1, "mark", () => openRows({ t: it.t, fate: "made" })),
    it.reasons.map(([reason, n]) => bar(reason, `−${count(n)}`, n / it.candidates, "dropped", () => openRows({ t: it.t, reason }))),
    bar("accepted", count(it.accepted), it.accepted / it.candidates, "accepted", () => openRows({ t: it.t, fate: PASSED }))),
    it.cut ? el("p", { class: "soft" }, link(`${percent(it.cut)} of the answers ran into the limit of their length`,
      () => openRows({ t: it.t, cut: true }))) : ""));
  section("funnel", blocks, el("p", { class: "soft" }, "Each name opens its rows."), el("div", { class: "grid" }, blocks));
}

function kinds() {
  const found = D.kinds.filter((it) => it.shares.length);
  const blocks = found.map((it) => el("div", {}, el("h3", {}, `Iteration ${it.t}`), el("ul", { class: "bars" },
    it.shares.map((share) => [
      bar(share.kind, percent(share.accepted), share.accepted, "accepted", () => openRows({ t: it.t, fate: PASSED, kind: share.kind })),
      bar("of the seeds", percent(share.seeds), share.seeds, "seed", () => openRows({ fate: "seed", kind: share.kind })),
    ]))));
  const charts = D.diversity.map((each) => overModels(each, ({ t }) => openRows({ t, fate: PASSED })));
  section("kinds", [...blocks, ...charts],
    el("p", { class: "soft" }, "A kind is a phrase that answers share. A share that runs away from the seeds', or texts that draw together, is a collapse. What runs on and what is repeated is of all answers, accepted or not."),
    el("div", { class: "grid" }, blocks), charts.length ? el("h3", {}, "Variety") : "", el("div", { class: "grid" }, charts));
}

// ---- figures over iterations

// A figure over the models, each of which opens what it is of.
const overModels = (each, open) => chart({ ...each, points: each.points.map((p) => ({ ...p, name: modelName(p.t), open: () => open(p),
  tick: p.t > 0 ? `it. ${p.t}` : p.t === 0 ? "base" : p.t === -1 ? "seeds only" : "reader" })) });

function numbers() {
  const rivals = [...new Set(D.gains.map((gain) => gain.over))];
  const gains = rivals.map((over) => {
    const points = D.gains.filter((gain) => gain.over === over);
    return { title: `better than ${over} by`, note: `${points[0].measure}, n ${[...new Set(points.map((p) => p.n))].join(", ")}`, zero: true, points };
  });
  const opens = (each) => each.name === "yield" ? ({ t }) => openRows({ t, fate: "made" }) : each.zero ? toGain : toAnswers(each.name);
  const charts = [...gains, ...D.figures].map((each) => overModels(each, opens(each)));
  section("numbers", charts, el("p", { class: "soft" }, "Points with their 95 % intervals, where an error is known; paired differences where it says better than. A point opens the answers or rows behind it."),
    el("div", { class: "grid" }, charts));
}

// ---- before and after

const pairs = { before: 0, after: D.story.chosen || D.story.best || 0, show: "all", order: "given", words: "", page: 0 };
const answerers = D.models.filter((model) => D.heldout.some((pair) => pair.by.some((by) => by.t === model.t)));
let answerTexts = null; // of each pair with its answers, in lower case, made when first searched

// The pairs behind what the two models are compared by; where they are not compared, behind the verdict.
const resting = () => (D.gains.find((gain) => gain.t === pairs.after && gain.rival === pairs.before)
  || D.gains.find((gain) => gain.t === D.story.chosen) || { pairs: [] }).pairs;
const SHOW = { all: "all", verdict: "the verdict rests on", chose: "chose the iteration" };
const OFFERED = Object.keys(SHOW).filter((show) => show === "all" || (show === "chose" ? D.heldout.some((pair) => pair.selects)
  : D.gains.some((gain) => gain.pairs.length < D.heldout.length)));

function answers() {
  if (answerers.length && !answerers.some((model) => model.t === pairs.after)) pairs.after = answerers[answerers.length - 1].t;
  const set = (name, value) => { pairs[name] = value; pairs.page = 0; drawAnswers(); };
  const pick = (name, label, options, read = (value) => value) => choice(`answers-${name}`, label, options, pairs[name], (value) => set(name, read(value)));
  const names = answerers.map((model) => [model.t, model.name]), read = (value) => answerers.find((model) => String(model.t) === value).t;
  section("answers", D.heldout, controls("Held-out pairs", searchBox("answers-words", (value) => set("words", value)),
    pick("before", "Before", names, read), pick("after", "After", names, read),
    OFFERED.length > 1 ? pick("show", "Pairs", OFFERED.map((show) => [show, SHOW[show]])) : "",
    pick("order", "Order", [["given", "as held out"], ["better", "most improved first"], ["worse", "most worsened first"]])),
    el("p", { id: "answers-count", role: "status" }), el("div", { id: "answers-list" }));
  if (D.heldout.length) drawAnswers();
}

// By how much an answer is better, by the first of these that both models have.
const WORTH = [(by) => by.scores && Object.values(by.scores)[0], (by) => by.bits === undefined ? undefined : -by.bits];
const improved = (before, after) => {
  for (const worth of before && after ? WORTH : []) {
    const [one, other] = [worth(before), worth(after)];
    if (one !== undefined && other !== undefined) return other - one;
  }
  return null;
};
// The value of one answer may be a weight, so that its kind counts as much as the others; then it says right or wrong.
const scored = ([name, value]) => D.judged.includes(name) ? value > 0 ? name : "wrong" : `${name} ${value}`;

function listed() {
  const words = wordsOf(pairs.words), compared = new Set(resting());
  if (words.length && !answerTexts) {
    answerTexts = D.heldout.map((pair) => [pair.id, pair.q, pair.wanted, ...pair.by.map((by) => by.answer || "")].join("\n").toLowerCase());
  }
  const isShown = { all: () => true, verdict: (_, index) => compared.has(index), chose: (pair) => pair.selects }[pairs.show];
  const of = (pair, t) => pair.by.find((by) => by.t === t);
  const answered = (pair) => [pairs.before, pairs.after].some((t) => (of(pair, t) || {}).answer !== undefined);
  const sign = { given: 0, better: -1, worse: 1 }[pairs.order];
  return D.heldout.map((pair, index) => [pair, improved(of(pair, pairs.before), of(pair, pairs.after)), index])
    .filter(([pair, , index]) => isShown(pair, index) && words.every((word) => answerTexts[index].includes(word)))
    .sort((a, b) => answered(b[0]) - answered(a[0]) || (sign ? sign * ((a[1] ?? -sign * Infinity) - (b[1] ?? -sign * Infinity)) || 0 : 0) || a[2] - b[2])
    .map(([pair]) => pair);
}

function side(pair, t) {
  const by = pair.by.find((each) => each.t === t);
  const facts = by ? [...Object.entries(by.scores || {}).map(scored), by.rouge !== undefined ? `ROUGE-L ${by.rouge}` : "",
    by.bits !== undefined ? `${by.bits} bits/byte of the wanted answer` : "", by.cut ? "cut at the limit" : ""].filter(Boolean).join(" · ") : "";
  return el("div", {}, el("h4", {}, modelName(t)), by && by.answer !== undefined ? text(by.answer || "(nothing)", 1500)
    : el("p", { class: "soft" }, "not asked for an answer"), el("p", { class: "soft" }, facts));
}

function drawAnswers() {
  const list = listed(), what = { all: "", verdict: " that the verdict rests on", chose: " that chose the iteration" }[pairs.show];
  const shown = list.slice(pairs.page * PAIRS, (pairs.page + 1) * PAIRS);
  at("answers-count").textContent = `${count(list.length)} of ${plural(D.heldout.length, "held-out pair")}${what}`;
  at("answers-list").replaceChildren(el("ul", { class: "list" }, shown.map((pair) => el("li", {}, text(pair.q, 1500, "h3"),
    el("div", { class: "sides" }, side(pair, pairs.before), side(pair, pairs.after),
      el("div", {}, el("h4", {}, "wanted"), text(pair.wanted, 1500)))))),
    pager(list.length, PAIRS, pairs, drawAnswers, "held-out pair"));
}

function openAnswers(changes) {
  Object.assign(pairs, { show: "all", words: "", page: 0 });
  for (const [name, value] of Object.entries(changes)) {
    if ((name === "show" ? OFFERED : answerers.map((model) => model.t)).includes(value)) pairs[name] = value;
  }
  for (const name of ["words", "before", "after", "show"]) if (at(`answers-${name}`)) at(`answers-${name}`).value = pairs[name];
  drawAnswers();
  jump("answers");
}

// ---- the map

function map() {
  const placed = ROWS.map((row, index) => ({ index, row, xy: row.xy })).filter((point) => point.xy);
  const order = { dropped: 0, rejected: 1, accepted: 2, edited: 3, seed: 4 };
  placed.sort((a, b) => order[a.row.fate] - order[b.row.fate]);
  const mark = (fate, x, y, size = 0.018) => fate === "seed"
    ? svg("path", { class: "seed", d: `M${x} ${y - 1.5 * size}L${x + 1.5 * size} ${y}L${x} ${y + 1.5 * size}L${x - 1.5 * size} ${y}Z` })
    : svg("circle", { class: fate, cx: x, cy: y, r: fate === "dropped" ? size * 0.8 : size });
  const layers = Object.fromEntries(Object.keys(order).map((fate) => [fate, svg("g", {}, placed.filter((p) => p.row.fate === fate)
    .map((p) => mark(fate, p.xy[0], -p.xy[1])))]));
  const ring = svg("circle", { class: "here", r: 0.04, visibility: "hidden" });
  const line = el("p", { class: "here-line", "aria-live": "polite" });
  let here = null;
  const seen = () => placed.filter((p) => !layers[p.row.fate].hasAttribute("display"));
  const go = (point) => {
    here = point;
    fill(ring, { cx: point.xy[0], cy: -point.xy[1], visibility: "visible" }, []);
    line.replaceChildren(el("span", { class: `badge ${point.row.fate}` }, FATES[point.row.fate]), link(clip(point.row.q, 200), () => openRow(point.index)));
  };
  const nearest = (event) => {
    const box = canvas.getBoundingClientRect(), view = 2.16;
    const [x, y] = [(event.clientX - box.left) / box.width * view - 1.08, -((event.clientY - box.top) / box.height * view - 1.08)];
    return seen().reduce((best, p) => { const d = (p.xy[0] - x) ** 2 + (p.xy[1] - y) ** 2; return d < best[1] ? [p, d] : best; }, [null, 0.01])[0];
  };
  const canvas = svg("svg", { viewBox: "-1.08 -1.08 2.16 2.16", role: "application", tabindex: 0, "aria-roledescription": "map",
    "aria-label": "Map of questions. Left and right arrow keys go from point to point, Enter opens the row.",
    onclick: (event) => { const point = nearest(event); if (point) { go(point); openRow(point.index); } },
    onmousemove: (event) => { const point = nearest(event); if (point && point !== here) go(point); },
    onkeydown: (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key], points = seen();
      if (step && points.length) { event.preventDefault(); go(points[(Math.max(-1, points.indexOf(here)) + step + points.length) % points.length]); }
      if (event.key === "Enter" && here) openRow(here.index);
    } }, Object.values(layers), ring);
  const legend = el("div", { class: "legend" }, Object.keys(FATES).filter((fate) => layers[fate].childElementCount).map((fate) =>
    el("label", {}, el("input", { type: "checkbox", checked: true, onchange: (event) => event.target.checked
      ? layers[fate].removeAttribute("display") : layers[fate].setAttribute("display", "none") }),
      svg("svg", { viewBox: "-0.03 -0.03 .06 .06", "aria-hidden": "true" }, mark(fate, 0, 0)), `${FATES[fate]} (${count(layers[fate].childElementCount)})`)));
  const some = D.map.shown < D.map.of ? ` ${count(D.map.shown)} of ${plural(D.map.of, "row")}, evenly chosen.` : "";
  section("map", D.map.share ? placed : [], el("p", { class: "soft" }, `Questions by ${D.map.embedder}, first two principal components (${percent(D.map.share)} of the variance: near points need not be near).${some} Each point opens its row.`),
    el("div", { class: "plot" }, legend, canvas, line));
}

// ---- all rows

const NONE = { words: "", fate: "", t: "", reason: "", kind: "", demo: null, cut: false, read: "" };
let filter = { ...NONE };
const list = { page: 0, found: [] };
let texts = null; // in lower case, made when first searched

// Choices of rows of several fates.
const MANY = { made: (row) => row.fate !== "seed", passed: (row) => row.fate !== "seed" && row.fate !== "dropped" };

function matches(row, index, words) {
  const f = filter;
  if (f.fate && !(f.fate in MANY ? MANY[f.fate](row) : row.fate === f.fate)) return false;
  if (f.t !== "" && row.t !== f.t) return false;
  if (f.reason && row.reason !== f.reason || f.kind && row.kind !== f.kind) return false;
  if (f.cut && !(row.answers && row.answers[row.chosen].finish === "length")) return false;
  if (f.read && !(row.review && row.review.made === f.read)) return false;
  if (f.demo !== null && !draws(row).some((draw) => draw.demos.includes(f.demo))) return false;
  return words.every((word) => texts[index].includes(word));
}
const draws = (row) => row.question ? [row.question, ...(row.answers || [])] : [];

function rows() {
  const options = (values) => [["", "all"], ...values.map((value) => [value, value])];
  const unique = (key) => [...new Set(ROWS.map((row) => row[key]).filter((value) => value !== undefined))];
  const set = (name, value) => { filter[name] = value; list.page = 0; drawRows(); };
  const pick = (name, label, choices) => choice(`rows-${name}`, label, choices, "", (value) => set(name, name === "t" && value !== "" ? Number(value) : value));
  at("rows").append(controls("Rows", searchBox("rows-words", (value) => set("words", value)),
    pick("fate", "Fate", [["", "all"], ["seed", FATES.seed], ["made", "generated"], ...PASSED === "passed" ? [["passed", "accepted by the filters"]] : [],
      ...Object.entries(FATES).filter(([fate]) => ["accepted", "dropped"].includes(fate) || fate !== "seed" && HAS[fate])]),
    pick("t", "Iteration", options([...new Set(D.funnel.map((it) => it.t))])),
    pick("reason", "Reason", options(unique("reason"))), pick("kind", "Kind of answer", options(unique("kind"))),
    el("button", { type: "button", onclick: () => openRows({}) }, "All rows")),
    el("p", { id: "rows-count", role: "status" }), el("div", { id: "rows-list" }));
  drawRows();
}

function drawRows() {
  const words = wordsOf(filter.words);
  if (words.length && !texts) texts = ROWS.map((row) => [row.q, row.a, row.id, row.review && row.review.q, row.review && row.review.a].filter(Boolean).join("\n").toLowerCase());
  list.found = [];
  ROWS.forEach((row, index) => { if (matches(row, index, words)) list.found.push(index); });
  const more = [filter.demo !== null ? ` made after ${ROWS[filter.demo].id}` : "", filter.cut ? " cut at the limit" : "", filter.read === "unread" ? " let pass unread" : filter.read ? ` ${filter.read} by a person` : ""].join("");
  at("rows-count").textContent = `${count(list.found.length)} of ${plural(ROWS.length, "row")}${more}`;
  const shown = list.found.slice(list.page * PAGE, (list.page + 1) * PAGE);
  at("rows-list").replaceChildren(el("ul", { class: "list" }, shown.map((index) => {
    const row = ROWS[index];
    return el("li", {}, badge(row), el("span", { class: "soft" }, row.t ? `iteration ${row.t} · ${row.id}` : row.id),
      el("div", { class: "text", dir: "auto" }, link(clip(row.q || "(no question)", CLIP), () => openRow(index))), text(row.a, CLIP),
      row.review && row.review.q ? el("p", { class: "text soft", dir: "auto" }, `as edited: ${clip(row.review.q, CLIP)}\n${clip(row.review.a, CLIP)}`) : "");
  })), pager(list.found.length, PAGE, list, drawRows, "row"));
}
const badge = (row) => el("span", { class: `badge ${row.fate}` }, row.reason ? clip(row.reason, 60) : FATES[row.fate]);

function openRows(changes) {
  filter = { ...NONE, ...changes };
  list.page = 0;
  for (const name of ["words", "fate", "t", "reason", "kind"]) at(`rows-${name}`).value = filter[name];
  if (at("row").open) at("row").close();
  drawRows();
  jump("rows");
}

// ---- one row

function openRow(index) {
  const row = ROWS[index];
  const used = ROWS.reduce((sum, other) => sum + draws(other).some((draw) => draw.demos.includes(index)), 0);
  showOne("row", row.id, [badge(row), row.id], list.found, index, openRow,
    [...(row.before || []), [row.q, row.a]].map(([question, answer]) => [turn("Question", text(question)),
      turn("Answer", answer ? text(answer) : el("p", { class: "soft" }, "none: the question was dropped"))]),
    facts(row, index, used), (row.answers || []).map((draw, number) => drawn(draw, number === row.chosen, row)),
    row.question ? [prompt("Prompt of the question", row.question), demos("The question was asked after", row.question)] : "");
}

function facts(row, index, used) {
  const rowLink = (place) => typeof place === "number" ? link(clip(ROWS[place].q, 160), () => openRow(place)) : `${place} (not in this folder)`;
  const entries = [
    ["iteration", row.t ? `${row.t}, batch ${row.batch + 1}` : "seed pair"],
    row.reason && ["dropped by", el("span", {}, link(row.reason, () => openRows({ reason: row.reason })),
      row.value !== null ? ` · value ${row.value}` : "", row.threshold !== null ? ` · threshold ${row.threshold}` : "")],
    row.near !== undefined && ["too near to", rowLink(row.near)],
    row.review && ["review", row.review.said],
    row.review && row.review.q && ["question as edited", text(row.review.q)],
    row.review && row.review.a && ["answer as edited", text(row.review.a)],
    row.kind && ["kind of answer", link(row.kind, () => openRows({ kind: row.kind }))],
    row.question && ["seed of the question", row.question.seed],
    row.answers && ["seed of the answer", row.answers[row.chosen].seed],
    row.answers && ["answer", `${plural(row.answers[row.chosen].tokens, "token")}, ${row.answers[row.chosen].finish === "length" ? "cut at the limit" : "ended by itself"}`],
    row.weights && ["weights", row.weights.slice(0, 16)],
    row.asked_by && ["asked by", row.asked_by.slice(0, 16)],
    ["shown before", used ? link(plural(used, "generated row"), () => openRows({ demo: index })) : "no row"],
  ].filter(Boolean);
  return el("dl", {}, entries.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

function drawn(draw, isChosen, row) {
  const scores = Object.entries(draw.scores || {});
  return el("div", {}, isChosen && row.answers.length === 1 ? "" : el("h3", {}, isChosen ? "The chosen answer" : "Another answer"),
    draw.text !== undefined ? turn("As it was drawn", text(draw.text)) : "",
    scores.length ? el("dl", {}, scores.map(([name, value]) => [el("dt", {}, name), el("dd", { class: "number" }, value)])) : "",
    demos("Answered after", draw), prompt("Prompt of the answer", draw));
}

function demos(title, draw) {
  if (!draw.demos.length) return el("p", { class: "soft" }, `${title} no demonstration.`);
  const shown = draw.demos.map((place, index) => [place, draw.near[index]]).reverse();
  return el("details", { open: title === "Answered after" }, el("summary", {}, `${title} ${plural(draw.demos.length, "pair")}${draw.near.length ? ", the nearest first" : ""}`),
    el("ul", { class: "list" }, shown.map(([place, near]) => el("li", {}, near === undefined ? "" : el("span", { class: "number soft" }, `${near.toFixed(2)} `),
      typeof place === "number" ? [link(clip(ROWS[place].q, CLIP), () => openRow(place)), text(ROWS[place].a, CLIP)] : `${place} (not in this folder)`))));
}

function prompt(title, draw) {
  const details = el("details", {}, el("summary", {}, title));
  details.addEventListener("toggle", () => {
    const whole = draw.prompt.map((piece) => typeof piece === "string" ? piece : ROWS[piece >> 1][piece & 1 ? "a" : "q"]).join("");
    if (details.childElementCount === 1) details.append(text(whole, LONG, "pre"));
  });
  return details;
}

// ---- all of it

for (const draw of [story, funnel, numbers, answers, map, kinds, rows]) draw();
ready({ story: "Verdict", funnel: "Funnel", numbers: "Figures", answers: "Before and after", map: "Map", kinds: "Kinds", rows: "Rows" },
  "row", ROWS.map((row) => row.id), openRow);
