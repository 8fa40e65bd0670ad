"use strict";
// What every page is drawn with. Every text becomes a text node: nothing here parses a string as HTML.
const D = JSON.parse(document.getElementById("data").textContent);
const LONG = 20000;
const at = (id) => document.getElementById(id);
const count = (n) => n.toLocaleString("en");
const plural = (n, what) => `${count(n)} ${what}${n === 1 ? "" : "s"}`;

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

