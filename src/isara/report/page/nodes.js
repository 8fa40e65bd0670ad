"use strict";
// What every page is drawn with. Every text becomes a text node: nothing here parses a string as HTML.
const D = JSON.parse(document.getElementById("data").textContent);
const LONG = 20000;
const at = (id) => document.getElementById(id);
const count = (n) => n.toLocaleString("en");
const plural = (n, what) => `${count(n)} ${what}${n === 1 ? "" : "s"}`;
const figure = (n) => Math.abs(n) >= 100 ? n.toFixed(0) : n.toFixed(3);
const percent = (share) => `${Math.round(100 * share)} %`;
const signed = (value) => `${value < 0 ? "−" : "+"}${figure(Math.abs(value))}`;

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
  if (value.length <= most || most < LONG) return node;
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
