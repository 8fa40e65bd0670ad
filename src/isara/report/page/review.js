// Goes through rows one by one. What is decided is sent to the program that shows this page, which stores it before it answers.
const WORDS = { accept: "accepted", edit: "edited", reject: "rejected", unread: "passed unread" };
const KEYS = [["a", "accept"], ["e", "edit"], ["r", "reject, then a number for the reason"], ["u", "undo: this row, or the last one decided"],
  ["j →", "next row"], ["k ←", "previous row"], ["n", "next undecided row"], ["Ctrl Enter", "save what is being written"], ["Esc", "leave it"]];
let here = 0, mode = "read", busy = false;

const decision = (row) => D.state[row.id];
const undecided = (start) => D.rows.findIndex((_, step) => !decision(D.rows[(start + step) % D.rows.length]));
const button = (label, key, onclick, props) => el("button", { type: "button", onclick, ...props }, label, key ? [" ", el("kbd", {}, key)] : "");

async function send(where, body) {
  if (busy) return null;
  busy = true;
  at("error").textContent = "";
  try {
    const reply = await fetch(where, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), credentials: "omit" });
    const said = await reply.json();
    if (reply.ok) return said;
    at("error").textContent = visible(said.error);
  } catch {
    at("error").textContent = "The program that shows this page has ended. What you decided is kept: start it again with the same command, and go on.";
  } finally {
    busy = false;
  }
  return null;
}

async function decide(row, kind, texts = {}) {
  const said = await send("decide", { id: row.id, decision: kind, ...texts });
  if (!said) return;
  D.state = said.state;
  D.order = said.order;
  mode = "read";
  if (kind === "undo") here = D.rows.indexOf(row); else next();
  draw(true);
}

function next() {
  const step = undecided(here);
  if (step >= 0) here = (here + step) % D.rows.length; else if (here < D.rows.length - 1) here += 1;
}

function undo() {
  const last = D.order[D.order.length - 1];
  const row = decision(D.rows[here]) ? D.rows[here] : D.rows.find((each) => each.id === last);
  if (row) decide(row, "undo");
}

function go(step) {
  here = Math.max(0, Math.min(D.rows.length - 1, here + step));
  mode = "read";
  draw(true);
}

function toMode(which) {
  mode = which;
  draw(false);
  at(which === "edit" ? "edit-answer" : "reason-1").focus();
}

// ---- drawing

function draw(focus) {
  const said = Object.values(D.state).map((each) => each.decision), total = D.rows.length;
  const parts = Object.entries(WORDS).map(([kind, word]) => [kind, word, said.filter((each) => each === kind).length]).filter(([, , n]) => n);
  at("progress").textContent = `${count(said.length)} of ${plural(total, "row")} decided${parts.length ? ": " : ""}${parts.map(([, word, n]) => `${count(n)} ${word}`).join(", ")}`;
  let start = 0;
  at("bar").replaceChildren(svg("svg", { viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" }, svg("rect", { class: "track", width: 100, height: 6 }),
    parts.map(([kind, , n]) => { const x = start; start += 100 * n / total; return svg("rect", { class: `fill-${kind}`, x, width: 100 * n / total, height: 6 }); })));
  const row = D.rows[here], made = decision(row);
  const forms = { read: reading, edit: editing, reject: rejecting };
  at("row").replaceChildren(el("div", { class: "top" }, el("h2", { id: "row-h" }, `Row ${count(here + 1)} of ${count(total)} `,
    el("span", { class: `badge ${made ? made.decision : ""}` }, made ? WORDS[made.decision] : "undecided")),
    button("Previous", "k", () => go(-1), { disabled: here === 0 }), button("Next", "j", () => go(1), { disabled: here === total - 1 })),
    ...row.before.flatMap(([q, a]) => [turn("Earlier question", text(q)), turn("Earlier answer", text(a))]), ...forms[mode](row, made),
    ...beside(row), el("p", { class: "soft" }, `${row.id}${row.about ? ` · ${row.about}` : ""}`));
  if (focus) { at("row").focus({ preventScroll: true }); window.scrollTo(0, 0); }
}

function reading(row, made) {
  const edited = made && made.decision === "edit";
  const changed = (title, was, now) => edited && was !== now ? [turn(title, text(now)), el("details", {}, el("summary", {}, "As it was made"), text(was))] : [turn(title, text(was))];
  return [...changed("Question", row.q, edited ? made.question : row.q), ...changed("Answer", row.a, edited ? made.answer : row.a),
    made && made.reason ? el("p", { class: "soft" }, `Reason: ${made.reason}`) : "",
    el("div", { class: "actions" }, button("Accept", "a", () => decide(row, "accept"), { class: "main" }), button("Edit", "e", () => toMode("edit")),
      button("Reject", "r", () => toMode("reject")), button("Undo", "u", undo, { disabled: !D.order.length }))];
}

function editing(row, made) {
  const now = made && made.decision === "edit" ? [made.question, made.answer] : [row.q, row.a];
  const boxes = ["question", "answer"].map((name, place) => {
    const box = el("textarea", { id: `edit-${name}`, dir: "auto", rows: Math.min(20, 2 + Math.ceil(now[place].length / 70)), spellcheck: "true" });
    box.value = now[place];
    return box;
  });
  // A box changes line ends by itself: a text that nobody touched is sent as it was.
  const first = boxes.map((box) => box.value);
  const reason = el("input", { id: "edit-reason", autocomplete: "off", value: made && made.decision === "edit" ? made.reason || "" : "" });
  const save = () => {
    const [question, answer] = boxes.map((box, place) => box.value === first[place] ? now[place] : box.value);
    decide(row, "edit", { question, answer, reason: reason.value });
  };
  return [el("form", { class: "form", onsubmit: (event) => { event.preventDefault(); save(); } }, el("label", {}, "Question", boxes[0]), el("label", {}, "Answer", boxes[1]),
    el("label", {}, "Why (may stay empty)", reason), el("div", { class: "actions" }, el("button", { type: "submit", class: "main", id: "save" }, "Save ", el("kbd", {}, "Ctrl Enter")),
      button("Leave it", "Esc", () => go(0))))];
}

function rejecting(row) {
  const reason = el("input", { id: "reason", autocomplete: "off" });
  const give = (words) => words.trim() ? decide(row, "reject", { reason: words }) : (at("error").textContent = "Say why in a word, or take one of the reasons.", reason.focus());
  return [turn("Question", text(row.q)), turn("Answer", text(row.a)), el("form", { class: "form", "aria-label": "Why is it rejected?", onsubmit: (event) => { event.preventDefault(); give(reason.value); } },
    el("div", { class: "actions" }, D.reasons.map((words, place) => button(words, String(place + 1), () => give(words), { id: `reason-${place + 1}` }))),
    el("label", {}, "Another reason", reason), el("div", { class: "actions" }, el("button", { type: "submit", class: "main", id: "save" }, "Reject"), button("Leave it", "Esc", () => go(0))))];
}

function beside(row) {
  const shown = row.near.map(([id, near]) => el("li", {}, near === null ? "" : el("span", { class: "number soft" }, `${near.toFixed(2)} `),
    D.texts[id] ? [text(D.texts[id][0], 600), el("div", { class: "soft" }, text(D.texts[id][1], 600))] : `${id} (not in this folder)`));
  const scores = Object.entries(row.scores);
  return [scores.length ? el("dl", {}, scores.map(([name, value]) => [el("dt", {}, name), el("dd", { class: "number" }, value.toPrecision(3))])) : "",
    shown.length ? el("details", { open: true }, el("summary", {}, `${D.near} (${shown.length}), the nearest first`), el("ul", { class: "list" }, shown)) : ""];
}

async function finish() {
  if (!await send("done", {})) return;
  const left = D.rows.filter((row) => !decision(row)).length;
  document.removeEventListener("keydown", press);
  at("keys").remove();
  at("done").remove();
  at("row").replaceChildren(el("h2", { id: "row-h" }, "Your decisions are kept"), el("p", {}, left ? `${plural(left, "row")} ${left === 1 ? "is" : "are"} still undecided: the same command shows them again.` : "Every row is decided."),
    el("p", {}, D.after), el("p", { class: "soft" }, "This page can be closed."));
}

function press(event) {
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
  if (event.key === "Escape" && mode !== "read") return go(0);
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && mode !== "read") { event.preventDefault(); return at("save").click(); }
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const row = D.rows[here], pick = mode === "reject" ? at(`reason-${event.key}`) : null;
  const does = pick ? () => pick.click() : mode !== "read" ? null : { a: () => decide(row, "accept"), e: () => toMode("edit"), r: () => toMode("reject"), u: undo,
    j: () => go(1), ArrowRight: () => go(1), k: () => go(-1), ArrowLeft: () => go(-1), n: () => { next(); draw(true); } }[event.key];
  if (does) { event.preventDefault(); does(); }
}

at("name").textContent = visible(D.name);
at("notice").textContent = visible(D.notice);
at("notice").hidden = !D.notice;
at("keys").append(el("dl", {}, KEYS.map(([key, what]) => [el("dt", {}, key.split(" ").map((each) => [el("kbd", {}, each), " "])), el("dd", {}, what)])));
at("done").addEventListener("click", finish);
document.addEventListener("keydown", press);
here = Math.max(0, undecided(0));
draw(true);
