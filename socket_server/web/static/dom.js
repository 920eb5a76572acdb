// Small helpers to build elements. Text only ever goes in as text: there is no way to pass markup through here.

const SVG = "http://www.w3.org/2000/svg";

/** The URL of something of this server, which may be served below a path (BASE_PATH). */
export const here = (path) => new URL(`../../${path}`, import.meta.url);

/** Return the element with this id; throws if the page lacks it. */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`index.html has no element with the id "${id}"`);
  return found;
}

/** Build an element. Keys of `attributes` are attribute names; children that are strings become text nodes. */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

/** An icon from the sprite in index.html; decoration only, so hidden from assistive technology. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** Milliseconds for people: "3.4 ms", "120 ms", "2.5 s". */
export function duration(ms) {
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return `${(ms / 1000).toFixed(1)} s`;
}
