// Building elements. Text is only ever inserted as text: nothing here takes markup.

const SVG = "http://www.w3.org/2000/svg";

/** Return the URL of a path of this server, which may be served below a base path (BASE_PATH). */
export const here = (path) => new URL(`../../${path}`, import.meta.url);

/** Return the element with this id. Throws if the page has none. */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`index.html has no element with the id "${id}"`);
  return found;
}

/** Return a new element. attributes: by name; false, null and undefined are left out. children: elements and strings. */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

/** Return an icon of the sprite in index.html, hidden from assistive technology. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** Set a text only if it differs, so that screen readers announce changes only. */
export function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Return milliseconds as text: "3.4 ms", "120 ms", "2.5 s". */
export function duration(ms) {
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return `${(ms / 1000).toFixed(1)} s`;
}
