// Draws the page of an evaluation from its data. A value of an item is known by its task and the place of its name there.
const ROWS = D.rows, PAGE = 20, CLIP = 900, HEADLINES = 4;
const several = D.tasks.length > 1;
const inTask = (task, name) => several ? `${D.tasks[task].name}: ${name}` : name;
const pValue = (p) => p === null ? "–" : p < 0.0001 ? "below 0.0001" : p.toFixed(4);
const differences = D.tasks.flatMap((task, t) => task.compared.map((each) => ({ ...each, t })));
const exact = (value) => Number.isInteger(value) ? count(value) : figure(value);
const isShown = (each) => each.adjusted !== null && each.adjusted < 0.05;

// ---- what was measured

function story() {
  const place = at("story"), names = D.tasks.map((task) => `${task.name} (${plural(task.items, "item")})`);
  const also = D.against ? [", and ", el("strong", {}, D.against.model), " on the same items"] : "";
  place.append(el("p", { class: "said" }, el("strong", {}, D.model || "A model"), also, names.length ? `: ${names.join(", ")}.` : ": no task is finished yet."));
  if (new Set(D.tasks.map((task) => task.weights)).size > 1) place.append(el("p", { class: "open" }, "The tasks were measured on models with different weights: what stands below is not of one model."));
  if (D.unfinished.length) place.append(el("p", { class: "open" }, `Not finished: ${D.unfinished.join(", ")}. The command that began it goes on.`));
  if (D.against && D.against.changed.length) {
    place.append(el("p", { class: "open" }, `No longer compared: ${D.against.changed.join(", ")}. The rows have changed since, here or in the other results: run it with --against again.`));
  }
  if (differences.length) compared(place);
  // What is compared has been shown with its difference; its interval stands in the table.
  const tiles = D.tasks.flatMap((task, t) => task.compared.length ? [] : task.figures.filter((figure) => figure.value !== null && !isPart(figure, task)).slice(0, HEADLINES).map((figure) => el("li", {},
    el("button", { type: "button", onclick: () => openFigure(t, figure) }, el("strong", {}, figure.said.split(" ± ")[0] + (figure.percent && figure.said.includes(" ± ") ? " %" : "")),
      inTask(t, figure.name), figure.interval ? el("small", {}, `95 %: ${figure.interval}`) : ""))));
  if (tiles.length) place.append(el("ul", { class: "tiles measured" }, tiles));
}

// "harmful: theft" is about fewer items than its task has: the table has it, the story does without.
const isPart = (figure, task) => figure.name.includes(": ") && figure.n < task.items;

function compared(place) {
  const many = differences.filter(isShown).length;
  place.append(el("p", { class: "verdict" }, el("b", {}, `${many} of ${plural(differences.length, "difference")} shown`),
    el("span", {}, "(p below 0.05 after Holm's correction for all of them; higher is not always better)")));
  D.tasks.forEach((task, t) => place.append(task.compared.length && several ? el("h3", {}, task.name) : "", el("div", { class: "compared" }, differences.filter((each) => each.t === t).map((each) => {
    const most = Math.max(...[each.difference.mean, each.difference.interval.low, each.difference.interval.high].map(Math.abs)) || 1;
    const { low, high } = each.difference.interval;
    return intervals([{ value: each.difference.mean, low, high, label: link(each.name, () => openChange(each)),
      said: [`${change(each.difference.mean)} [${change(low)}, ${change(high)}]`, el("small", {}, `${figure(each.before)} → ${figure(each.after)} · p ${pValue(each.adjusted)}${isShown(each) ? ", shown" : ""} · n ${count(each.n)}`)] }],
    0, [-most, most]);
  }))));
  place.append(el("p", { class: "soft" }, `This model less ${D.against.model}, paired by item, with 95 % intervals, each line on a scale of its own around 0. A name opens its items, the largest change first.`));
}

const openChange = (each) => openItems({ figure: `${each.t}:${each.of}`, task: String(each.t), order: each.difference.mean < 0 ? "fallen" : "risen" });

// ---- figures

// The items of a figure: those that count in it, the hits of a share first.
const openFigure = (t, figure, all) => {
  const place = D.tasks[t].names.indexOf(figure.name), own = ROWS.some((row) => row.t === t && row.v[place] !== undefined);
  openItems({ task: String(t), figure: own ? `${t}:${place}` : "", order: own ? "high" : "given", show: own && !all && isBinary(t, place) ? "yes" : "all" });
};
const isBinary = (t, place) => D.tasks[t].figures[place] !== undefined && D.tasks[t].figures[place].percent
  && ROWS.every((row) => row.t !== t || [undefined, 0, 1].includes(row.v[place]));

function table(task, t) {
  const bar = (figure) => figure.percent && figure.low !== null ? svg("svg", { viewBox: "0 0 104 12", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("line", { class: "axis", x1: 2, x2: 102, y1: 6, y2: 6 }), svg("line", { class: "bar", x1: 2 + 100 * figure.low, x2: 2 + 100 * figure.high, y1: 6, y2: 6 }),
    svg("rect", { class: "point", x: 1 + 100 * figure.value, y: 2, width: 2, height: 8 })) : "";
  return el("div", { class: "wrap" }, el("table", {}, el("thead", {}, el("tr", {}, ["figure", "value", "95 % interval", "items", "remark"].map((title) => el("th", { scope: "col" }, title)))),
    el("tbody", {}, task.figures.map((figure) => el("tr", {}, el("th", { scope: "row" }, figure.name),
      el("td", {}, link(figure.said, () => openFigure(t, figure))), el("td", {}, figure.interval, bar(figure)),
      el("td", {}, link(count(figure.n), () => openFigure(t, figure, true))), el("td", { class: "free" }, figure.remark))))));
}

function figures() {
  section("figures", D.tasks, el("p", { class: "soft" }, "Mean ± standard error. A value opens the items that it is made of, of a share those that count in it; the number of items opens all of them."),
    ...D.tasks.flatMap((task, t) => [el("h3", {}, task.name), el("p", { class: "soft" }, `${count(task.items)} of ${plural(task.available, "item")}. ${task.made}`), table(task, t)]),
    D.notes.length ? el("div", { class: "soft" }, el("h3", {}, "What has to be known"), D.notes.map((note) => el("p", {}, note))) : "");
}

// ---- items

const NONE = { task: "", figure: "", label: "", part: "", show: "all", order: "given", words: "" };
const state = { ...NONE, page: 0 };
let texts = null; // in lower case, made when first searched
let found = [];

const chosen = () => state.figure ? state.figure.split(":").map(Number) : null;
const valueOf = (row) => { const figure = chosen(); return figure && row.t === figure[0] ? row.v[figure[1]] : undefined; };
const beforeOf = (row) => { const figure = chosen(); return figure && row.b && row.t === figure[0] ? row.b.v[figure[1]] : undefined; };
const risen = (row) => { const [now, then] = [valueOf(row), beforeOf(row)]; return now === undefined || then === undefined ? undefined : now - then; };
const SHOW = {
  all: ["all", () => true],
  yes: ["those that count as 1", (row) => valueOf(row) === 1],
  no: ["those that count as 0", (row) => valueOf(row) === 0],
  cut: ["cut at the limit", (row) => row.f === "length"],
  empty: ["empty answers", (row) => row.a === "" && row.f !== "too long"],
  long: ["prompt too long", (row) => row.f === "too long"],
  differ: ["answers differ", (row) => row.b !== undefined && row.b.a !== row.a],
  up: ["risen", (row) => risen(row) > 0],
  down: ["fallen", (row) => risen(row) < 0],
};
const ORDER = { given: ["as asked", null, 1], high: ["highest first", valueOf, -1], low: ["lowest first", valueOf, 1], risen: ["most risen first", risen, -1], fallen: ["most fallen first", risen, 1] };
const NEEDS_FIGURE = ["yes", "no", "up", "down", "high", "low", "risen", "fallen"];
const NEEDS_OTHER = ["differ", "up", "down", "risen", "fallen"];

function items() {
  const anyBefore = ROWS.some((row) => row.b), named = (choices) => Object.entries(choices).map(([value, [shown]]) => [value, shown]).filter(([value]) => anyBefore || !NEEDS_OTHER.includes(value));
  const labels = [...new Set(ROWS.flatMap((row) => Object.entries(row.j || {}).map(([kind, [label]]) => `${kind}: ${label}`)))].sort();
  const parts = [...new Set(ROWS.map((row) => row.p).filter(Boolean))].sort();
  const counting = D.tasks.flatMap((task, t) => task.names.map((name, place) => [`${t}:${place}`, inTask(t, name)]).filter((_, place) => ROWS.some((row) => row.t === t && row.v[place] !== undefined)));
  const set = (name, value) => {
    state[name] = value;
    state.page = 0;
    if (["show", "order"].includes(name) && NEEDS_FIGURE.includes(value) && !state.figure && counting.length) at("items-figure").value = state.figure = counting[0][0];
    drawItems();
  };
  const pick = (name, label, options) => options.length < 2 ? "" : choice(`items-${name}`, label, options, state[name], (value) => set(name, value));
  const all = (options) => options.length ? [["", "all"], ...options] : [];
  section("items", ROWS, controls("Items", searchBox("items-words", (value) => set("words", value)),
    pick("task", "Task", several ? all(D.tasks.map((task, t) => [String(t), task.name])) : []), pick("figure", "Counts in", all(counting)),
    pick("label", "Judgement", all(labels.map((label) => [label, label]))), pick("part", "Part", parts.length > 1 ? all(parts.map((part) => [part, part])) : []),
    pick("show", "Show", named(SHOW)), pick("order", "Order", named(ORDER)), el("button", { type: "button", onclick: () => openItems({}) }, "All items")),
  el("p", { id: "items-count", role: "status" }), el("div", { id: "items-list" }));
  if (ROWS.length) drawItems();
}

function matches(row, index, words) {
  if (state.task && row.t !== Number(state.task)) return false;
  if (state.figure && valueOf(row) === undefined) return false;
  if (state.part && row.p !== state.part) return false;
  if (state.label && !Object.entries(row.j || {}).some(([kind, [label]]) => `${kind}: ${label}` === state.label)) return false;
  return SHOW[state.show][1](row) && words.every((word) => texts[index].includes(word));
}

function drawItems() {
  const words = wordsOf(state.words), [, key, sign] = ORDER[state.order];
  if (words.length && !texts) texts = ROWS.map((row) => [row.id, row.q, row.a || "", row.w || "", (row.b && row.b.a) || ""].join("\n").toLowerCase());
  found = ROWS.map((row, index) => index).filter((index) => matches(ROWS[index], index, words));
  if (key) {
    const by = new Map(found.map((index) => [index, key(ROWS[index])]));
    found.sort((a, b) => (by.get(a) === undefined) - (by.get(b) === undefined) || sign * (by.get(a) - by.get(b)) || a - b);
  }
  at("items-count").textContent = `${count(found.length)} of ${plural(ROWS.length, "item")}`;
  at("items-list").replaceChildren(el("ul", { class: "list" }, found.slice(state.page * PAGE, (state.page + 1) * PAGE).map((index) => {
    const row = ROWS[index], now = valueOf(row), then = beforeOf(row);
    return el("li", {}, row.b ? "" : badges(row), el("span", { class: "soft" }, [several ? D.tasks[row.t].name : "", row.p, row.id].filter(Boolean).join(" · ")),
      el("div", { class: "text", dir: "auto" }, link(clip(row.q || "(no question)", CLIP), () => openItem(index))),
      sides(row, CLIP), el("p", { class: "soft number" }, [now === undefined ? "" : `${D.tasks[row.t].names[chosen()[1]]} ${then === undefined ? "" : `${exact(then)} → `}${exact(now)}`, ...ending(row)].filter(Boolean).join(" · ")));
  })), pager(found.length, PAGE, state, drawItems, "item"));
}

const badges = (row) => Object.entries(row.j || {}).map(([kind, [label]]) => el("span", { class: "badge" }, `${kind}: ${label}`));
const ending = (row) => [row.f === "length" ? "cut at the limit" : row.f === "too long" ? "the prompt does not fit into the model's context" : ""];
const answer = (row, most) => row.a === undefined ? el("p", { class: "soft" }, "no answer: likelihoods are measured") : text(row.a || "(nothing)", most);

// The answers before and after, and the one that was wanted, beside each other.
function sides(row, most) {
  if (row.a === undefined && !row.w) return "";
  const judged = (each) => row.b ? el("p", { class: "soft" }, Object.entries(each.j || {}).map(([kind, [label]]) => `${kind}: ${label}`).join(" · ")) : "";
  const named = (title, each) => el("div", {}, el("h4", {}, title), answer(each, most), judged(each));
  const blocks = [row.b ? named(D.against.model, row.b) : "", named(row.b ? D.model || "this model" : "answer", row), row.w ? el("div", {}, el("h4", {}, "wanted"), text(row.w, most)) : ""].filter(Boolean);
  return el("div", { class: `sides${blocks.length < 3 ? " two" : ""}` }, blocks);
}

function openItems(changes) {
  Object.assign(state, NONE, changes, { page: 0 });
  for (const name of Object.keys(NONE)) if (at(`items-${name}`)) at(`items-${name}`).value = state[name];
  if (at("item").open) at("item").close();
  drawItems();
  jump("items");
}

// ---- one item

const idOf = (row) => `${D.tasks[row.t].name}-${row.id}`;

function openItem(index) {
  const row = ROWS[index], task = D.tasks[row.t];
  const listed = (entries) => entries.length ? el("dl", {}, entries.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])) : "";
  const values = Object.entries(row.v).map(([place, value]) => [task.names[place], link(row.b && row.b.v[place] !== undefined ? `${exact(row.b.v[place])} → ${exact(value)}` : exact(value),
    () => openItems({ task: String(row.t), figure: `${row.t}:${place}`, order: "high" }))]);
  const judged = (each, whose) => Object.entries(each.j || {}).map(([kind, [label, score, raw]]) => [`${kind}${whose}`, `${label}${score === null ? "" : ` (${figure(score)})`} · ${clip(raw, CLIP)}`]);
  showOne("item", idOf(row), [badges(row), row.id], found, index, openItem, turn("Question", text(row.q)),
    row.b ? turn(D.against.model, answer(row.b)) : "", turn(row.b ? D.model || "This model" : "Answer", answer(row)), row.w ? turn("Wanted", text(row.w)) : "",
    listed([...judged(row, ""), ...(row.b ? judged(row.b, `, ${D.against.model}`) : []), ...(row.n === undefined ? [] : [["tokens", `${count(row.n)}${ending(row).filter(Boolean).map((said) => `, ${said}`).join("")}`]]), ...(row.p ? [["part", row.p]] : [])]),
    el("h3", {}, "What it adds to each figure"), listed(values),
    row.more ? el("details", {}, el("summary", {}, "What else is stored"), listed(Object.entries(row.more).map(([name, value]) => [name, text(value)]))) : "");
}

// ---- all of it

for (const draw of [story, figures, items]) draw();
ready({ story: "What was measured", figures: "Figures", items: "Items" }, "item", ROWS.map(idOf), openItem);
