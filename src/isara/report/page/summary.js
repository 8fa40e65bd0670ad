// Draws the page of several comparisons from its data: the arms over held-out categories, or over numbers of seeds.
const ALL = D.comparisons, state = { figure: D.figures[0] };
const what = D.counts ? "number of seeds" : "split";
const shortName = (each) => D.counts ? String(each.seed_pairs) : each.name.replace("-", " ");
const marks = (name) => D.arms.find((each) => each.name === name).instructions ? "†" : "";
// The page of a comparison with the answers of an arm, where it is there.
const toAnswers = (comparison, name) => comparison.page && `${comparison.page}${address("arm", name)}`;
const leading = (href, said, label) => href ? el("a", { href, "aria-label": label }, said) : said;

// ---- what came out

function story() {
  const place = at("story"), done = plural(ALL.length, "comparison");
  place.append(el("p", { class: "said" }, el("strong", {}, `${plural(D.arms.length, "arm")} on ${D.model}, ${done}`), ` over ${D.counts ? "numbers of seeds" : "categories that were held out"}, ${plural(D.training_seeds.length, "training seed")}. Score: ${D.score}.`));
  const pooled = D.pooled && D.pooled[D.reference];
  if (pooled && pooled.difference && pooled.p !== null) {
    const shown = pooled.p < 0.05, more = pooled.difference;
    place.append(el("p", { class: "verdict" }, el("b", { class: shown ? "helped" : "open" }, shown ? more.mean > 0 ? "Higher" : "Lower" : "No difference shown"),
      el("span", {}, `over all questions: ${D.reference} less ${D.baseline} ${difference(more)}, p ${pooled.p.toFixed(4)} (Holm's correction; shown below 0.05).`)));
  }
  const lines = ALL.map((each) => [each, each.lines[D.reference]]).filter(([, line]) => line && line.difference);
  if (!lines.length) return;
  const ends = range([0, ...lines.flatMap(([, line]) => [line.difference.mean, line.difference.interval.low, line.difference.interval.high])], 0.02);
  place.append(el("h3", {}, `${D.reference} less ${D.baseline}, by ${what}`), ...intervals(lines.map(([each, line]) => ({ value: line.difference.mean, low: line.difference.interval.low, high: line.difference.interval.high,
    label: [leading(toAnswers(each, D.reference), each.name), el("small", {}, each.about)],
    said: [difference(line.difference), el("span", { class: "soft" }, line.p === null ? "" : ` p ${line.p.toFixed(4)}`)] })), 0, ends));
  place.append(el("p", { class: "soft" }, "Differences of means, paired by question and training seed, with 95 % intervals. Higher is not always better: a score may be one of harm."));
}

function missing() {
  section("missing", D.missing, el("ul", {}, D.missing.map((said) => el("li", {}, text(said)))));
}

// ---- the table

const bare = (value) => value === null || value === undefined ? "?" : D.percent ? String(Math.round(100 * value)) : figure(value);
const difference = (found) => `${change(found.mean)}${D.percent ? " points" : ""} [${change(found.interval.low)}, ${change(found.interval.high)}]`;

function cell(name, line, comparison) {
  const found = line && line.figures[state.figure];
  if (!found) return el("td", {}, "–");
  const said = `${shownAs(found.value)}${(comparison ? [comparison] : ALL).some((each) => each.contaminated.includes(name)) ? "‡" : ""}`, less = state.figure === D.figures[0] && line.difference;
  return el("td", {}, leading(comparison && toAnswers(comparison, name), said, comparison && `${name}, ${comparison.name}: ${said}`),
    el("small", {}, `[${bare(found.interval.low)}, ${bare(found.interval.high)}] n ${count(found.n)}`),
    less ? el("small", {}, `${change(less.mean)} [${change(less.interval.low)}, ${change(less.interval.high)}]${line.p === null ? "" : `, p ${line.p.toFixed(3)}`}`) : "");
}

const head = (each) => el("th", { scope: "col" }, leading(each.page, each.name), el("small", {}, each.about), el("small", {}, plural(each.seed_pairs, "seed pair")));

function tables() {
  const body = el("div", {}), drawn = () => {
    body.replaceChildren(el("div", { class: "wrap" }, el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "arm"), ALL.map(head), D.pooled ? el("th", { scope: "col" }, "all questions") : "")),
      el("tbody", {}, D.arms.map(({ name, about }) => el("tr", {}, el("th", { scope: "row" }, name + marks(name), el("small", {}, about)),
        ALL.map((each) => cell(name, each.lines[name], each)), D.pooled ? cell(name, D.pooled[name]) : ""))))));
    plots();
  };
  const notes = [`Means over questions and training seeds with their 95 % intervals; below them the difference to ${D.baseline} and its p. A name or a number leads to the comparison's own page, where every answer is.`];
  if (D.arms.some((each) => each.instructions)) notes.push("† Instructions stand in the prompts of these arms, which ISARA's own rule forbids.");
  if (ALL.some((each) => each.contaminated.length)) notes.push("‡ Contaminated: these arms' models have seen a seed pair that gives a test question away.");
  at("arms").append(D.figures.length > 1 ? controls("Figure", choice("figure", "Figure", D.figures.map((name) => [name, name]), state.figure, (value) => { state.figure = value; drawn(); })) : "",
    body, el("div", { class: "soft" }, notes.map((note) => el("p", {}, note))));
  drawn();
}

// ---- a picture for each arm, all on one scale

function plots() {
  const of = (name) => ALL.map((each) => (each.lines[name] && each.lines[name].figures[state.figure]) || null);
  const shown = D.arms.filter(({ name }) => of(name).some(Boolean));
  const ends = range(shown.flatMap(({ name }) => of(name).flatMap((found) => found ? [found.value, found.interval.low, found.interval.high] : [])), 0.08);
  const base = of(D.baseline).map((found) => found && found.value);
  const charts = shown.map(({ name }) => chart({ title: name + marks(name), ends, joined: D.counts, also: name === D.baseline || !base.some((value) => value !== null) ? [] : base,
    points: of(name).map((found, index) => {
      const href = toAnswers(ALL[index], name);
      return { value: found && found.value, low: found && found.interval.low, high: found && found.interval.high, name: ALL[index].name, tick: shortName(ALL[index]),
        open: href ? () => { location.href = href; } : null };
    }) }, shownAs));
  if (!at("plots")) at("plot").append(el("p", { class: "soft" }, `${state.figure} by ${what}, all on one scale; the dashed marks are ${D.baseline}. A point leads to the answers.`), el("div", { class: "grid", id: "plots" }));
  at("plots").replaceChildren(...charts);
}

// ---- what was accepted

function yields() {
  const made = D.arms.filter(({ name }) => ALL.some((each) => each.yields[name]));
  section("yields", made, el("p", { class: "soft" }, "Accepted pairs for each candidate, and for each seed pair; means over the training seeds."),
    el("div", { class: "wrap" }, el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "arm"), ALL.map(head))),
      el("tbody", {}, made.map(({ name }) => el("tr", {}, el("th", { scope: "row" }, name), ALL.map(({ yields: found }) => el("td", {}, found[name] ? percent(found[name][0]) : "–",
        found[name] ? el("small", {}, `${found[name][1].toFixed(1)} a seed pair`) : ""))))))));
}

for (const draw of [story, missing, tables, yields]) draw();
ready({ story: "What came out", missing: "Missing", arms: "Arms", plot: "Intervals", yields: "Accepted" });
