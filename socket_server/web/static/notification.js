// A notification as an element.
//
// A payload is untrusted: it may contain markup, script URLs, wrong types or megabytes. Text is inserted as text. A link must
// be http(s) or a path of this site, an image https:, data:image or of this site. Everything else is left out.

import { duration, element, icon } from "./dom.js";
import { expandable } from "./expandable.js";
import { language, t } from "./language.js";

const MAX_ACTION_KEY_CHARS = 80;
const PRIORITIES = ["low", "normal", "high"];
const LANGUAGE_TAG = /^[a-z]{2,3}(-[a-z0-9]{2,8})*$/i;

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const isText = (value) => typeof value === "string" && value.trim() !== "";
const objectOr = (value) => (isObject(value) ? value : {});

/** Return the text to show as {text, lang}, or null. value: a string, or an object of language to string. */
export function chooseText(value, wanted) {
  if (isText(value)) return { text: value, lang: null };
  if (!isObject(value)) return null;
  const lang = [wanted, "en", "he", ...Object.keys(value)].find((key) => Object.hasOwn(value, key) && isText(value[key]));
  if (!lang) return null;
  return { text: value[lang], lang: LANGUAGE_TAG.test(lang) ? lang : null };
}

/** Return the URL of a link, or null if a link may not lead there. */
export function safeLink(value) {
  if (!isText(value)) return null;
  const url = parse(value);
  if (!url || !["http:", "https:"].includes(url.protocol)) return null;
  const absolute = /^https?:\/\//i.test(value);
  const ownPath = value.startsWith("/") && url.origin === location.origin;
  return absolute || ownPath ? url : null;
}

/** Return the URL of an image as a string, or null if an image may not be loaded from there. */
export function safeImage(value) {
  if (!isText(value)) return null;
  if (/^data:image\/[a-z0-9.+-]+[;,]/i.test(value)) return value;
  const url = parse(value);
  if (!url || !["http:", "https:"].includes(url.protocol)) return null;
  return url.protocol === "https:" || url.origin === location.origin ? url.href : null;
}

function parse(value) {
  try {
    return new URL(value, location.origin);
  } catch {
    return null;
  }
}

/** Return the title in the language of the page. */
export function titleOf(payload) {
  return chooseText(objectOr(payload).title, language())?.text ?? t("untitled");
}

/**
 * Return the list item of a notification.
 *
 * entry: {payload, offset, at (Date), latencyMs or null, replayed (it was missed and delivered by the recovery)}.
 */
export function renderNotification(entry) {
  const payload = objectOr(entry.payload);
  const metadata = objectOr(payload.metadata);
  const priority = PRIORITIES.includes(metadata.priority) ? metadata.priority : "normal";
  const body = chooseText(payload.body, language());
  const link = safeLink(metadata.url);

  return element(
    "li",
    { class: "notification", "data-testid": "notification", "data-priority": priority, "data-offset": entry.offset },
    picture(metadata.icon),
    element(
      "div",
      { class: "notification-main" },
      element(
        "div",
        { class: "notification-head" },
        textElement("h4", "notification-title", chooseText(payload.title, language()) ?? { text: t("untitled") }),
        clock(entry.at),
      ),
      body && textElement("p", "notification-body", body),
      link && anchor(link),
      facts(entry, payload, priority),
    ),
  );
}

function textElement(tag, name, { text, lang }) {
  return expandable(element(tag, { class: name, "data-testid": name, dir: "auto", lang }), text);
}

function clock(at) {
  const time = at.toLocaleTimeString(language(), { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
  return element("time", { class: "notification-time", datetime: at.toISOString(), dir: "ltr" }, time);
}

function picture(source) {
  const frame = element("div", { class: "notification-icon", "aria-hidden": "true" });
  const address = safeImage(source);
  if (!address) {
    frame.append(icon("bell"));
    return frame;
  }
  const image = element("img", { alt: "", width: 40, height: 40, decoding: "async", referrerpolicy: "no-referrer" });
  image.addEventListener("error", () => frame.replaceChildren(icon("bell")), { once: true });
  image.src = address;
  frame.append(image);
  return frame;
}

function anchor(url) {
  const own = url.origin === location.origin;
  const where = own ? url.pathname + url.search + url.hash : url.host + (url.pathname === "/" ? "" : url.pathname);
  return element(
    "a",
    { class: "notification-link", href: url.href, target: "_blank", rel: "noopener noreferrer nofollow", title: url.href },
    element("span", { dir: "ltr", class: "notification-address" }, where),
    icon("out"),
  );
}

function facts(entry, payload, priority) {
  const list = element("ul", { class: "facts", "aria-label": t("details") });
  const add = (text, { title, name, code = true, testid } = {}) =>
    list.append(element("li", { class: name, title, "data-testid": testid, dir: code ? "ltr" : null }, text));

  if (priority === "high") add(t("priorityHigh"), { name: "fact-high", code: false });
  if (priority === "low") add(t("priorityLow"), { name: "fact-low", code: false });
  if (entry.replayed) add(t("replayed"), { name: "fact-replayed", code: false, title: t("replayedHint"), testid: "notification-replayed" });
  if (entry.latencyMs != null) add(duration(entry.latencyMs), { name: "fact-latency", title: t("latencyHint"), testid: "notification-latency" });
  if (entry.offset != null) add(`#${entry.offset}`, { title: t("offsetHint"), testid: "notification-offset" });
  if (isText(payload.actionKey)) add(payload.actionKey.slice(0, MAX_ACTION_KEY_CHARS), { title: "actionKey" });
  return list;
}
