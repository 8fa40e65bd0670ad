"use strict";
// What every page is drawn with. Every text becomes a text node: nothing here parses a string as HTML.
const D = JSON.parse(document.getElementById("data").textContent);
const LONG = 20000, BRIEF = 300; // characters; what is shown as briefly as that opens elsewhere
const at = (id) => document.getElementById(id);
const count = (n) => n.toLocaleString("en");
const plural = (n, what) => `${count(n)} ${what}${n === 1 ? "" : "s"}`;
const figure = (n) => Math.abs(n) >= 100 ? n.toFixed(0) : n.toFixed(3);
const percent = (share) => `${Math.round(100 * share)} %`;
// A score and a change of one, in percent where the page's scores are shares.
const shownAs = (value) => value === null || value === undefined ? "–" : D.percent ? `${Math.round(100 * value)} %` : figure(value);
const change = (value) => {
  if (value === null) return "?";
  const size = D.percent ? String(Math.abs(Math.round(100 * value))) : figure(Math.abs(value));
  return Number(size) ? `${value < 0 ? "−" : "+"}${size}` : size;
};

// What has no shape or turns the reading order stands as its code; joiners that scripts need stay.
const HIDDEN = /(?![\n\t\u200c\u200d])[\p{C}\p{Zl}\p{Zp}\u{e0100}-\u{e01ef}]/gu;
const visible = (text) => String(text).replace(HIDDEN, (c) => `⟨${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
const clip = (text, most) => text.length > most ? `${text.slice(0, most)}…` : text;

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false && value !== null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== "")
    .map((child) => child instanceof Node ? child : visible(child)));
  return node;
}
const el = (tag, props, ...children) => fill(document.createElement(tag), props, children);
const svg = (tag, props, ...children) => fill(document.createElementNS("http://www.w3.org/2000/svg", tag), props, children);
const link = (text, onclick, props) => el("button", { type: "button", class: "plain", onclick, ...props }, text);

// A text as it is; of a very long one the beginning, and the rest when asked for.
function text(value, most = LONG, tag = "p") {
  const node = el(tag, { class: "text", dir: "auto" }, clip(value, most));
  if (value.length <= most || most <= BRIEF) return node;
  const more = el("button", { type: "button", onclick: () => { node.textContent = visible(value); more.remove(); } },
    `Show all ${count(value.length)} characters`);
  return el("div", {}, node, more);
}

// A step back and forth through a long list.
function pager(total, size, state, draw, what) {
  const last = Math.max(0, Math.ceil(total / size) - 1);
  const turn = (step) => el("button", { type: "button", disabled: state.page + step < 0 || state.page + step > last,
    onclick: () => { state.page += step; draw(); } }, step < 0 ? "Earlier" : "Later");
  return total > size ? el("div", { class: "pager" }, turn(-1), el("span", { class: "soft" },
    `${count(state.page * size + 1)}–${count(Math.min(total, (state.page + 1) * size))} of ${plural(total, what)}`), turn(1)) : "";
}

function jump(id) {
  at(id).scrollIntoView();
  at(id).setAttribute("tabindex", "-1");
  at(id).focus({ preventScroll: true });
}

// A section with nothing to show is left out, and so is its link.
function section(id, what, ...children) {
  if (what.length) at(id).append(...children.filter((child) => child !== "")); else at(id).remove();
}

// What a list is searched and chosen by: a box that waits until nobody types, and choices.
const wordsOf = (value) => value.toLowerCase().split(/\s+/).filter(Boolean);
function searchBox(id, set) {
  let wait;
  return el("label", { class: "wide" }, "Search questions, answers, ids", el("input", { type: "search", id, autocomplete: "off",
    oninput: (event) => { clearTimeout(wait); wait = setTimeout(() => set(event.target.value), 120); } }));
}
const choice = (id, label, options, value, set) => el("label", {}, label, el("select", { id, onchange: (event) => set(event.target.value) },
  options.map(([key, shown]) => el("option", { value: key, selected: key === value }, clip(String(shown), 60)))));
const controls = (label, ...children) => el("form", { class: "controls", role: "search", "aria-label": label, onsubmit: (event) => event.preventDefault() }, children);

// ---- figures

// Lines with a value, its interval and what is said of both, on one scale; `zero` is where the dashed mark stands.
function intervals(lines, zero, [least, most]) {
  const x = (value) => 6 + 288 * (value - least) / (most - least || 1);
  return lines.map((line) => el("div", { class: `line${line.shown ? " shown" : ""}` }, el("span", {}, line.label),
    svg("svg", { viewBox: "0 0 300 20", preserveAspectRatio: "none", "aria-hidden": "true" },
      zero === undefined ? "" : svg("line", { class: "zero", x1: x(zero), x2: x(zero), y1: 0, y2: 20 }),
      line.low === null ? "" : svg("line", { class: "bar", x1: x(line.low), x2: x(line.high), y1: 10, y2: 10 }),
      (line.ticks || []).map((one) => svg("line", { class: "tick", x1: x(one), x2: x(one), y1: 13, y2: 19 })),
      line.value === null ? "" : svg("rect", { class: "point", x: x(line.value) - 2, y: 4, width: 4, height: 12 })),
    el("span", { class: "number" }, line.said)));
}

// The least and the most of what is known, and a little more to each side.
function range(values, pad) {
  const known = values.filter((value) => value !== null && value !== undefined);
  const [least, most] = [Math.min(...known), Math.max(...known)];
  const more = (most - least) * pad || Math.abs(most) * 0.1 || 0.1;
  return [least - more, most + more];
}

function ticks(least, most) {
  const rough = (most - least) / 4, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const found = [];
  for (let n = Math.ceil(least / step); n * step <= most; n += 1) found.push(Number((n * step).toPrecision(6)));
  return found;
}

// Points with their intervals, each of which opens what is behind it. A point has a value, low and high or none, a name, a tick
// below it and `open`; `also` are the values of something else, a dashed mark each.
function chart({ title, note, points, zero, ends, also = [], joined }, show = figure) {
  const W = 340, H = 170, left = 44, right = 12, top = 18, bottom = 26;
  const [least, most] = ends || range([...points.flatMap((p) => [p.value, p.low, p.high]), ...also, zero ? 0 : null], 0.15);
  const y = (value) => top + (H - top - bottom) * (most - value) / (most - least);
  const x = (index) => left + (W - left - right) * (index + 0.5) / points.length;
  const way = points.map((p, index) => p.value === null ? "" : `${x(index)},${y(p.value)}`).filter(Boolean).join(" ");
  const dense = points.length > 6;
  const parts = ticks(least, most).map((value) => [svg("line", { class: "axis", x1: left, x2: W - right, y1: y(value), y2: y(value) }),
    svg("text", { x: left - 5, y: y(value) + 4, "text-anchor": "end" }, show === figure ? String(value) : show(value))]);
  if (zero) parts.push(svg("line", { class: "zero", x1: left, x2: W - right, y1: y(0), y2: y(0) }));
  if (joined) parts.push(svg("polyline", { class: "way", points: way }));
  points.forEach((p, index) => {
    const known = p.low !== undefined && p.low !== null;
    const said = p.value === null ? `${p.name}: nothing measured` : `${p.name}: ${show(p.value)}${known ? `, 95 % interval ${show(p.low)} to ${show(p.high)}` : ""}`;
    const other = also[index] ?? null;
    if (other !== null) parts.push(svg("line", { class: "also", x1: x(index) - 18, x2: x(index) + 18, y1: y(other), y2: y(other) }));
    if (p.value !== null) {
      parts.push(svg("g", p.open ? { role: "button", tabindex: 0, "aria-label": said, onclick: p.open,
        onkeydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); p.open(); } } } : { role: "img", "aria-label": said },
        svg("title", {}, said),
        svg("rect", { x: x(index) - 16, y: top, width: 32, height: H - top - bottom, fill: "transparent" }),
        known ? svg("line", { class: "bar", x1: x(index), x2: x(index), y1: y(p.low), y2: y(p.high) }) : "",
        svg("circle", { class: "point", cx: x(index), cy: y(p.value), r: 4.5 }),
        dense ? "" : svg("text", { class: "value", x: x(index) + 8, y: y(p.value) + 4 }, show(p.value))));
    }
    if (!dense || index % Math.ceil(points.length / 6) === 0) parts.push(svg("text", { x: x(index), y: H - 8, "text-anchor": "middle" }, p.tick));
  });
  return el("figure", {}, el("figcaption", {}, title, note ? el("small", {}, ` · ${note}`) : ""),
    svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "group", "aria-label": title }, parts));
}

// ---- one of many, in a dialog of its own address

const address = (kind, id) => `#${kind}-${encodeURIComponent(visible(id))}`;

// Shows what `index` stands for, between its neighbours in the list that was found.
function showOne(kind, id, title, found, index, open, ...children) {
  const dialog = at(kind), place = found.indexOf(index);
  const step = (by, label) => el("button", { type: "button", disabled: place < 0 || found[place + by] === undefined, onclick: () => open(found[place + by]) }, label);
  dialog.replaceChildren();
  fill(dialog, {}, [el("div", { class: "top" }, el("h2", { id: `${kind}-h` }, title), step(-1, "Previous"), step(1, "Next"),
    el("button", { type: "button", onclick: () => dialog.close() }, "Close")), ...children]);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  location.hash = address(kind, id);
}

const turn = (title, ...children) => el("div", { class: "turn" }, el("h3", {}, title), children);

// The links to what is there, and the one that the page's address names.
function ready(names, kind, ids = [], open = null) {
  at("name").textContent = visible(D.name);
  at("nav").append(...Object.entries(names).filter(([id]) => at(id)).map(([id, name]) => el("a", { href: `#${id}` }, name)));
  if (!kind) return;
  at(kind).addEventListener("close", () => history.replaceState(null, "", location.pathname + location.search));
  const look = () => {
    const index = location.hash.startsWith(`#${kind}-`) ? ids.findIndex((id) => address(kind, id) === location.hash) : -1;
    if (index >= 0 && !at(kind).open) open(index);
  };
  window.addEventListener("hashchange", look);
  look();
}
