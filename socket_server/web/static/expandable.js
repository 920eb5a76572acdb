// Long texts: a few lines of them, and a button that shows the rest.

import { element, put } from "./dom.js";
import { t } from "./language.js";

const COLLAPSED_CHARS = 2_000; // more do not fit in the lines that connections.css shows
const EXPANDED_CHARS = 100_000; // a browser lays out more only slowly

const texts = new WeakMap(); // element -> what shows and hides its button
const sizes = new ResizeObserver((entries) => entries.forEach(({ target }) => texts.get(target)?.()));

/** Put a text into `node`; return a wrapper with a button that is shown if the text does not fit. */
export function expandable(node, text) {
  const button = element("button", { type: "button", class: "link expand", "aria-expanded": "false", "data-testid": "expand", hidden: true });
  let expanded = false;

  const render = () => {
    const most = expanded ? EXPANDED_CHARS : COLLAPSED_CHARS;
    const rest = expanded && text.length > most ? t("moreCharacters", text.length - most) : "";
    put(node, text.slice(0, most) + rest);
    node.classList.toggle("is-expanded", expanded);
    button.setAttribute("aria-expanded", String(expanded));
    put(button, t(expanded ? "showLess" : "showAll"));
    button.hidden = !expanded && text.length <= most && node.scrollHeight <= node.clientHeight + 1;
  };
  button.addEventListener("click", () => {
    expanded = !expanded;
    render();
  });
  texts.set(node, render);
  sizes.observe(node);
  render();
  return element("div", { class: "expandable" }, node, button);
}
