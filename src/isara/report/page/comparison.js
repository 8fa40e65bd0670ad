// Draws the page of a comparison from its data. A line is an arm, or one of its iterations, with the models behind it.
const PAGE = 6, CLIP = 900, WIDE = 8;
const ARMS = Object.fromEntries(D.arms.map((arm) => [arm.name, arm]));
const PAGES = D.arms.some((arm) => arm.runs.length);
const arms = D.lines.map((line, index) => index).filter((index) => D.lines[index].t === null);
const unit = D.percent ? " points" : "";
const interval = (ends, show) => `[${show(ends.low)}, ${show(ends.high)}]`;
const once = (values) => [...new Set(values)].join(", ");
const marks = (name) => (ARMS[name].instructions ? "†" : "") + (ARMS[name].contaminated ? "‡" : "");
const lineName = (line) => `${line.arm}${marks(line.arm)}${line.t === null ? "" : `, iteration ${line.t}`}`;
// A share's value of one answer is a weight where it may be above 1: each kind of question is to count as much as the others.
const WEIGHED = D.columns.map((_, column) => D.percent && D.answers.some((model) => model.some((answer) => answer.v[column] > 1)));
const verdict = (value) => value > 0 ? "right" : "wrong";
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

// ---- what came out

function story() {
  const line = D.lines.find((each) => each.arm === D.reference && each.t === null && each.difference && each.p !== null);
  const measured = plural(D.questions.length, "question"), seeds = plural(D.seeds.length, "training seed");
  const place = at("story");
  place.append(el("p", { class: "said" }, el("strong", {}, `${plural(D.arms.length, "arm")} on ${D.model}`), `, ${measured}, ${seeds} (${D.seeds.join(", ")}). Score: ${D.score}.`));
  if (line) {
    const found = line.difference, shown = line.p < 0.05;
    place.append(el("p", { class: "verdict" }, el("b", { class: shown ? "helped" : "open" }, shown ? found.mean > 0 ? "Higher" : "Lower" : "No difference shown"),
      el("span", {}, `${D.reference} less ${D.baseline}: `, link(`${change(found.mean)}${unit} ${interval(found.interval, change)}`,
        () => openAnswers(D.lines.indexOf(line), 0, found.mean < 0 ? "down" : "up")), `, p ${line.p.toFixed(4)} (Holm's correction; shown below 0.05).`)));
  }
  const failed = D.arms.flatMap((arm) => arm.failed);
  if (failed.length) {
    place.append(el("h3", {}, `${count(failed.length)} failed`), el("ul", {}, failed.map((each) => el("li", { class: "text" }, `${each.arm}, seed ${each.seed}: ${each.message}`))));
  }
}

// ---- the table

const cell = (label, open, ...small) => el("td", {}, open ? link(label, open) : label, small.filter(Boolean).map((said) => el("small", {}, said)));

function table(lines, first, extra) {
  const differ = lines.some((index) => D.lines[index].difference), names = D.columns;
  const titles = [first, names[0], ...differ ? [`less ${D.baseline}`, "p (Holm)"] : [], ...names.slice(1), "n", "seeds", "steps", ...extra ? ["candidates", "tokens generated", "tokens trained", ...PAGES ? ["pages"] : []] : []];
  return el("div", { class: "wrap" }, el("table", {}, el("thead", {}, el("tr", {}, titles.map((title) => el("th", { scope: "col" }, title)))),
    el("tbody", {}, lines.map((index) => row(index, differ, extra)), extra ? D.arms.filter((arm) => !lines.some((index) => D.lines[index].arm === arm.name))
      .map((arm) => el("tr", {}, head(arm.name, arm), el("td", { class: "failed", colspan: titles.length - 1 }, "failed"))) : [])));
}

const head = (name, arm, open) => el("th", { scope: "row" }, open ? link(name, open) : name, arm ? el("small", {}, arm.about) : "",
  arm && arm.failed.length ? el("small", { class: "failed" }, `failed with ${arm.failed.map((each) => `seed ${each.seed}`).join(", ")}`) : "");

function row(index, differ, extra) {
  const line = D.lines[index], arm = ARMS[line.arm], found = line.difference;
  const score = (name) => {
    const value = line.figures[name];
    if (!value) return el("td", {}, "–");
    const spread = new Set(value.seeds).size > 1 ? `seeds ${shownAs(Math.min(...value.seeds))} to ${shownAs(Math.max(...value.seeds))}` : "";
    return cell(shownAs(value.value), () => openAnswers(index, D.columns.indexOf(name), "given"), interval(value.interval, shownAs), spread);
  };
  const unequal = line.pairs.length && line.steps.some(Boolean) && String(line.steps) !== String(line.baseline_steps) ? `against ${once(line.baseline_steps)}` : "";
  const cost = (name) => el("td", {}, arm.cost ? count(Math.round(arm.cost[name])) : "–");
  return el("tr", {}, head(lineName(line), extra && arm, () => openAnswers(index, 0, "given")), score(D.columns[0]),
    differ ? [found ? cell(`${change(found.mean)}${unit}`, () => openAnswers(index, 0, found.mean < 0 ? "down" : "up"), interval(found.interval, change)) : el("td", {}, "–"),
      el("td", {}, line.p === null ? "–" : line.p.toFixed(4))] : [],
    D.columns.slice(1).map(score), el("td", {}, String(line.figures[D.columns[0]].n)), el("td", {}, String(line.models.length)),
    cell(once(line.steps), null, unequal),
    extra ? [cost("candidates"), cost("generated"), cost("trained"), PAGES ? el("td", { class: "links" },
      arm.runs.length ? arm.runs.map((run) => el("a", { href: run.href, "aria-label": `${arm.name}, ${run.said}` }, run.said)) : "–") : ""] : []);
}

function tables() {
  const notes = ["In brackets the 95 % bootstrap interval over the n questions, each with its mean over the training seeds; below it the range of the seeds. Costs are those of one training seed, as if each arm had made everything by itself. A score, a difference or an arm's name opens the answers behind it."];
  if (D.lines.some((line) => line.difference)) notes.push(`Differences are paired by question and seed, with the model of ${D.baseline} that has seen as many optimiser steps; p from random sign flips, corrected by Holm for the differences of its table.`);
  if (D.arms.some((arm) => arm.instructions)) notes.push("† Instructions stand in the prompts of these arms, which ISARA's own rule forbids.");
  if (D.one_source) notes.push("Seeds and tests come from one source: the figures say little of questions that others would ask.");
  const near = D.questions.filter((question) => question.near).length;
  const leaks = near ? el("p", {}, "‡ Contaminated: ", link(`${plural(near, "test question")} near a seed pair`, () => openAnswers(state.line, 0, "given", "near")), ", which these arms' models have seen.") : "";
  at("arms").append(table(arms, "arm", true), el("div", { class: "notes soft" }, notes.map((note) => el("p", {}, note)), leaks));
  const iterations = D.lines.map((line, index) => index).filter((index) => D.lines[index].t !== null);
  section("iterations", iterations, el("details", { open: iterations.length <= PAGE }, el("summary", {}, `${plural(iterations.length, "iteration")} of the arms that train`),
    table(iterations, "arm, iteration", false)));
}

// ---- the plot

function plots() {
  section("plot", arms, el("p", { class: "soft" }, `Means with their 95 % intervals; short lines are the training seeds' means, the dashed one is ${D.baseline}'s.`),
    ...D.columns.flatMap((name) => [D.columns.length > 1 ? el("h3", {}, name) : "", plot(name)]));
}

function plot(name) {
  const shown = arms.filter((index) => D.lines[index].figures[name]);
  const of = (index) => D.lines[index].figures[name];
  let [least, most] = range(shown.flatMap((index) => [of(index).value, of(index).interval.low, of(index).interval.high, ...of(index).seeds]), 0.05);
  if (D.percent) [least, most] = [Math.max(0, least), Math.min(1, most)];
  const base = shown.find((index) => D.lines[index].arm === D.baseline);
  return el("div", {}, intervals(shown.map((index) => {
    const { value, interval: { low, high }, seeds } = of(index);
    return { value, low, high, ticks: seeds.length > 1 ? seeds : [], label: lineName(D.lines[index]),
      said: [link(shownAs(value), () => openAnswers(index, D.columns.indexOf(name), "given")), el("span", { class: "soft" }, ` ${interval({ low, high }, shownAs)}`)] };
  }), base === undefined ? undefined : of(base).value, [least, most]),
  el("div", { class: "line scale soft", "aria-hidden": "true" }, el("span"), el("div", {}, el("span", {}, shownAs(least)), el("span", {}, shownAs(most))), el("span")));
}

// ---- answers

const state = { line: 0, column: 0, show: "all", order: "given", seed: D.seeds[0], words: "", page: 0, arms: new Set() };
let texts = null; // of each question with its answers, in lower case, made when first searched
let found = [], beside = [];

const valueOf = (models, question, column) => {
  const values = models.map((model) => D.answers[model][question].v[column]).filter((value) => value !== null);
  return values.length ? mean(values) : null;
};
// The same in words: of a weight whether the answers are right, else the mean.
const saidOf = (models, question, column) => {
  const right = models.map((model) => D.answers[model][question].v[column]).filter((value) => value !== null);
  if (!WEIGHED[column] || !right.length) return shownAs(valueOf(models, question, column));
  return right.length === 1 ? verdict(right[0]) : `right with ${right.filter((value) => value > 0).length} of ${plural(right.length, "seed")}`;
};
const moreSaid = (line, more) => WEIGHED[state.column]
  ? `${lineName(line)}: right ${more > 0 ? "more often than" : more < 0 ? "less often than" : "as often as"} ${D.baseline}`
  : `${lineName(line)} less ${D.baseline}: ${change(more)}${unit}`;
// What a line is worth at a question, and by how much more than the baseline's models that it is held against.
const worth = (line, question) => valueOf(line.models, question, state.column);
const gain = (line, question) => {
  const [ours, theirs] = [0, 1].map((side) => valueOf(line.pairs.map((pair) => pair[side]), question, state.column));
  return ours === null || theirs === null ? null : ours - theirs;
};

// What stands side by side: the line that was chosen, the baseline's models that it is held against, then other arms.
function cards() {
  const line = D.lines[state.line];
  const first = [{ title: lineName(line), models: line.models, focus: true }];
  if (line.pairs.length) first.push({ title: `${D.baseline}${marks(D.baseline)}`, models: [...new Set(line.pairs.map((pair) => pair[1]))] });
  const others = arms.filter((index) => index !== state.line && state.arms.has(index) && !(line.pairs.length && D.lines[index].arm === D.baseline));
  return [...first, ...others.map((index) => ({ title: lineName(D.lines[index]), models: D.lines[index].models }))];
}

const SHOW = {
  all: ["all", () => true],
  differ: ["arms differ in score", (question) => new Set(beside.map((card) => valueOf(card.models, question, state.column)).filter((value) => value !== null)).size > 1],
  up: [`above ${D.baseline}`, (question) => gain(D.lines[state.line], question) > 0],
  down: [`below ${D.baseline}`, (question) => gain(D.lines[state.line], question) < 0],
  cut: ["cut at the limit", (question) => D.lines[state.line].models.some((model) => D.answers[model][question].finish === "length")],
  near: ["near a seed pair", (question) => Boolean(D.questions[question].near)],
};
const ORDER = {
  given: ["as asked", null, 1], up: [`most above ${D.baseline} first`, gain, -1], down: [`most below ${D.baseline} first`, gain, 1],
  high: ["highest first", worth, -1], low: ["lowest first", worth, 1],
};

function answers() {
  const first = D.lines.findIndex((line) => line.arm === D.reference && line.t === null);
  state.line = Math.max(0, first);
  arms.slice(0, WIDE).forEach((index) => state.arms.add(index));
  const set = (name, value) => { state[name] = value; state.page = 0; drawAnswers(); };
  const pick = (name, label, options) => options.length < 2 ? "" : choice(`answers-${name}`, label, options, state[name],
    (value) => set(name, ["show", "order"].includes(name) ? value : Number(value)));
  const named = (choices) => Object.entries(choices).map(([value, [shown]]) => [value, shown]);
  at("answers").append(controls("Answers", searchBox("answers-words", (value) => set("words", value)),
    pick("line", "Arm", D.lines.map((line, index) => [index, lineName(line)])),
    pick("column", "Figure", D.columns.map((name, index) => [index, name])),
    pick("show", "Show", named(SHOW).filter(([value]) => value !== "near" || D.questions.some((question) => question.near))),
    pick("order", "Order", named(ORDER)),
    pick("seed", "Training seed", D.seeds.map((seed) => [seed, seed]))),
    el("details", {}, el("summary", {}, "Arms side by side"), el("fieldset", { class: "pick" }, el("legend", { class: "soft" }, "Beside the chosen arm and what it is held against"),
      arms.map((index) => el("label", {}, el("input", { type: "checkbox", checked: state.arms.has(index),
        onchange: (event) => { state.arms[event.target.checked ? "add" : "delete"](index); drawAnswers(); } }), lineName(D.lines[index]))))),
    el("p", { id: "answers-count", role: "status" }), el("div", { id: "answers-list" }));
  drawAnswers();
}

function drawAnswers() {
  const words = wordsOf(state.words);
  if (words.length && !texts) {
    texts = D.questions.map((question, index) => [question.id, question.q, question.wanted || "", ...new Set(D.answers.map((model) => D.texts[model[index].a]))].join("\n").toLowerCase());
  }
  const [, key, sign] = ORDER[state.order], line = D.lines[state.line];
  beside = cards();
  found = D.questions.map((question, index) => index).filter((index) => SHOW[state.show][1](index) && words.every((word) => texts[index].includes(word)));
  if (key) {
    const by = new Map(found.map((index) => [index, key(line, index)]));
    found.sort((a, b) => (by.get(a) === null) - (by.get(b) === null) || sign * (by.get(a) - by.get(b)) || a - b);
  }
  at("answers-count").textContent = `${count(found.length)} of ${plural(D.questions.length, "question")}`;
  at("answers-list").replaceChildren(el("ul", { class: "list" }, found.slice(state.page * PAGE, (state.page + 1) * PAGE).map((index) => {
    const question = D.questions[index], more = gain(line, index);
    return el("li", {}, el("div", { class: "text", dir: "auto" }, link(clip(question.q || "(no question)", CLIP), () => openQuestion(index))),
      question.wanted ? el("div", { class: "wanted" }, el("span", { class: "soft" }, "wanted: "), text(question.wanted, CLIP, "span")) : "",
      more === null ? "" : el("p", { class: "soft" }, moreSaid(line, more)),
      el("div", { class: "cards" }, beside.map((each) => card(each, index))));
  })), pager(found.length, PAGE, state, drawAnswers, "question"));
}

function card(each, question) {
  const place = each.models.find((model) => D.models[model].seed === state.seed) ?? each.models[0];
  const value = saidOf(each.models, question, state.column), own = D.models[place];
  const facts = [each.models.length > 1 ? `seed ${own.seed}: ${saidOf([place], question, state.column)}` : "", own.steps ? plural(own.steps, "step") : "", ...said(D.answers[place][question])];
  return el("div", { class: `card${each.focus ? " focus" : ""}` }, el("h4", {}, each.title, " ", el("span", { class: "score" }, value)),
    text(D.texts[D.answers[place][question].a] || "(nothing)", CLIP), el("p", { class: "soft" }, facts.filter(Boolean).join(" · ")));
}

const said = (answer) => [answer.finish === "length" ? "cut at the limit" : answer.finish === "too long" ? "the question does not fit into the model's context" : "",
  answer.demos ? plural(answer.demos.length, "demonstration") : ""];

function openAnswers(line, column, order, show = "all") {
  Object.assign(state, { line, column, order, show, words: "", page: 0 });
  for (const name of ["line", "column", "order", "show", "words"]) if (at(`answers-${name}`)) at(`answers-${name}`).value = state[name];
  drawAnswers();
  jump("answers");
}

// ---- one question, with what every model answered

function openQuestion(index) {
  const question = D.questions[index];
  showOne("question", question.id, `Question ${question.id}`, found, index, openQuestion, turn("Question", text(question.q)),
    question.wanted ? turn("Wanted", text(question.wanted)) : "", question.near ? turn("Near a seed pair", text(question.near)) : "",
    D.models.map((model, number) => answered(model, D.answers[number][index])));
}

function answered(model, answer) {
  const facts = [`seed ${model.seed}`, model.iteration ? `iteration ${model.iteration}` : "base model", model.exported && model.iteration ? "exported" : "", plural(model.steps, "step"), ...said(answer)];
  const values = D.columns.map((name, column) => [WEIGHED[column] ? "" : `${name} `, answer.v[column], WEIGHED[column] ? verdict : shownAs]).filter(([, value]) => value !== null);
  return turn(`${model.arm}${marks(model.arm)} · ${facts.filter(Boolean).join(" · ")}`, text(D.texts[answer.a] || "(nothing)"),
    el("p", { class: "soft number" }, values.map(([name, value, show]) => `${name}${show(value)}`).join(" · ")),
    answer.demos ? demos(answer.demos) : "");
}

function demos(ids) {
  const details = el("details", {}, el("summary", {}, `Answered after ${plural(ids.length, "pair")}, in this order`));
  details.addEventListener("toggle", () => {
    if (details.childElementCount > 1) return;
    details.append(el("ul", { class: "list" }, ids.map((id) => el("li", {}, D.pairs[id] ? [text(D.pairs[id].q, CLIP), el("p", { class: "text soft", dir: "auto" }, clip(D.pairs[id].a, CLIP))] : `${id} (not in this folder)`))));
  });
  return details;
}

// ---- all of it

if (!D.lines.length) ["arms", "plot", "iterations", "answers"].forEach((id) => at(id).remove());
story();
if (D.lines.length) for (const draw of [tables, plots, answers]) draw();
ready({ story: "What came out", arms: "Arms", plot: "Intervals", iterations: "Iterations", answers: "Answers" },
  "question", D.questions.map((question) => question.id), openQuestion);
// The page of several comparisons leads to an arm's answers.
const asked = arms.find((index) => address("arm", D.lines[index].arm) === location.hash);
if (asked !== undefined) openAnswers(asked, 0, "given");
