// The language of the page, English or Hebrew, and the direction that goes with it.
//
// index.html marks its texts: data-text (content), data-label (aria-label), data-placeholder.

import { ENGLISH } from "./texts-en.js";
import { HEBREW } from "./texts-he.js";

const TEXTS = { en: ENGLISH, he: HEBREW };
const STORED_AS = "socket-server.language";

const listeners = new Set();
let current = "en";

/** "en" or "he". */
export const language = () => current;

/** Return a text in the language of the page. A text that is a function gets the values. */
export function t(key, ...values) {
  const text = TEXTS[current][key];
  if (text === undefined) throw new Error(`no text named "${key}"`);
  return typeof text === "function" ? text(...values) : text;
}

/** Return the text for a refused sign-in: in English as the server sent it. */
export function authErrorText(code, message) {
  return TEXTS[current].authErrors?.[code] ?? message;
}

/** Call `listener` after each change of language. Return a function that ends that. */
export function onLanguageChange(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Return the language to start with: the visitor's last choice, else that of the browser. */
export function firstLanguage() {
  const stored = remembered();
  if (Object.hasOwn(TEXTS, stored)) return stored;
  return /^(he|iw)\b/i.test(navigator.language || "") ? "he" : "en";
}

/** Show the page in a language. remember: also at the next visit. */
export function setLanguage(wanted, { remember = false } = {}) {
  current = wanted in TEXTS ? wanted : "en";
  if (remember) keep(current);
  document.documentElement.lang = current;
  document.documentElement.dir = current === "he" ? "rtl" : "ltr";
  document.title = t("pageTitle");
  for (const node of document.querySelectorAll("[data-text]")) node.textContent = t(node.dataset.text);
  for (const node of document.querySelectorAll("[data-label]")) node.setAttribute("aria-label", t(node.dataset.label));
  for (const node of document.querySelectorAll("[data-placeholder]")) node.placeholder = t(node.dataset.placeholder);
  for (const listener of listeners) listener();
}

function remembered() {
  try {
    return localStorage.getItem(STORED_AS) ?? "";
  } catch {
    return ""; // the browser does not allow storage
  }
}

function keep(value) {
  try {
    localStorage.setItem(STORED_AS, value);
  } catch {
    // the browser does not allow storage: the choice ends with the page
  }
}
