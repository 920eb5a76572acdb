// The form that acts as the back end: it builds a notification and sends it with POST /broadcast.

import { byId, duration, element, here, icon } from "./dom.js";
import { language, onLanguageChange, t } from "./language.js";
import { showSnippets, startSnippets } from "./snippets.js";

const REMEMBERED_SENDS = 500; // for the latency of their notifications

const EXAMPLES = {
  task: {
    he: ["הוקצתה לך משימה חדשה", "דנה הקצתה לך את המשימה ״אישור התקציב הרבעוני״, לביצוע עד יום חמישי."],
    en: ["You have a new task", "Dana assigned “Approve the quarterly budget” to you, due on Thursday."],
    priority: "normal",
    icon: here("demo/static/icon-task.svg").pathname,
    url: "https://example.com/tasks/42",
    actionKey: "updateTask",
  },
  alert: {
    he: ["כניסה ממחשב חדש", "זיהינו כניסה לחשבון שלך ממחשב חדש בחיפה. אם לא נכנסת משם, מומלץ להחליף סיסמה עכשיו."],
    en: ["Sign-in from a new computer", "Your account was used on a new computer in Haifa. If that was not you, change your password now."],
    priority: "high",
    icon: here("demo/static/icon-alert.svg").pathname,
    url: "https://example.com/security",
    actionKey: "securityAlert",
  },
  report: {
    he: ["הדוח השבועי מוכן", "סיכום הפעילות של השבוע מוכן לקריאה, מתי שנוח לך."],
    en: ["Your weekly report is ready", "A summary of last week’s activity. Read it whenever you like."],
    priority: "low",
    icon: here("demo/static/icon-report.svg").pathname,
    url: "https://example.com/reports/weekly",
    actionKey: "reportReady",
  },
};

const PAGE = Array.from(crypto.getRandomValues(new Uint32Array(2)), (n) => n.toString(36)).join("");
const sentAt = new Map(); // id of a send of this page -> its performance.now()
let sends = 0;
let result = null; // () => node: a function, so that it follows the language

/** Return the milliseconds since this page sent a notification; null if another client did. */
export function latencyOf(payload) {
  const start = sentAt.get(payload?.data?.sentBy);
  return start === undefined ? null : performance.now() - start;
}

/** needsApiKey: the server needs one. users(): the ids of the users signed in on this page. onSent(): after each answer. */
export function startComposer({ needsApiKey, users, onSent }) {
  const form = byId("composer");
  byId("api-key-field").hidden = !needsApiKey;
  fill(EXAMPLES.task);

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    await send();
    onSent();
  });
  form.addEventListener("input", changed);
  for (const button of form.querySelectorAll("[data-example]")) {
    button.addEventListener("click", () => fill(EXAMPLES[button.dataset.example]));
  }
  byId("everyone").addEventListener("click", () => {
    const all = users();
    if (all.length) byId("composer-users").value = all.join(", ");
    changed();
  });
  onLanguageChange(() => {
    showResult();
    orderLanguages();
  });
  orderLanguages();
  startSnippets(() => ({ body: { userIds: userIds(), notification: buildNotification() }, needsApiKey }));
  reserveRoomForSendBar();
}

function changed() {
  if (userIds().length) byId("composer-users").removeAttribute("aria-invalid");
  showSnippets();
}

/** On a phone the bar with the button covers the end of the page: keep that much room free. */
function reserveRoomForSendBar() {
  const bar = byId("send-bar");
  new ResizeObserver(() => document.documentElement.style.setProperty("--send-bar", `${bar.offsetHeight}px`)).observe(bar);
}

function fill({ he, en, priority, icon: address, url, actionKey }) {
  [byId("title-he").value, byId("body-he").value] = he;
  [byId("title-en").value, byId("body-en").value] = en;
  byId(`priority-${priority}`).checked = true;
  byId("icon-url").value = address;
  byId("link-url").value = url;
  byId("action-key").value = actionKey;
  changed();
}

/** Put the text in the language of the page first. */
function orderLanguages() {
  const first = byId(`text-${language()}`);
  if (first.parentElement.firstElementChild !== first) first.parentElement.prepend(first);
}

const valueOf = (id) => byId(id).value.trim();

function userIds() {
  return valueOf("composer-users").split(",").map((id) => id.trim()).filter(Boolean);
}

/** Return the notification. Empty fields are left out. */
function buildNotification() {
  const both = (he, en) => {
    const texts = Object.fromEntries(Object.entries({ he: valueOf(he), en: valueOf(en) }).filter(([, text]) => text));
    return Object.keys(texts).length ? texts : undefined;
  };
  return {
    actionKey: valueOf("action-key") || undefined,
    title: both("title-he", "title-en"),
    body: both("body-he", "body-en"),
    metadata: {
      url: valueOf("link-url") || undefined,
      icon: valueOf("icon-url") || undefined,
      priority: new FormData(byId("composer")).get("priority") ?? "normal",
    },
  };
}

async function send() {
  if (!userIds().length) {
    result = () => note("bad", "alert", t("needRecipients"));
    byId("composer-users").setAttribute("aria-invalid", "true");
    byId("composer-users").focus();
    showResult();
    return;
  }
  const button = byId("send");
  const id = `${PAGE}-${(sends += 1)}`;
  const body = { userIds: userIds(), notification: { ...buildNotification(), data: { sentAt: Date.now(), sentBy: id } } };
  const headers = { "Content-Type": "application/json" };
  const key = valueOf("api-key");
  if (key) headers.Authorization = `Bearer ${key}`;

  button.setAttribute("aria-busy", "true");
  const start = performance.now();
  remember(id, start);
  try {
    const response = await fetch(here("broadcast"), { method: "POST", headers, body: JSON.stringify(body) });
    const ms = performance.now() - start;
    const answer = await response.json().catch(() => null);
    result = () => (response.ok && answer ? success(answer, ms) : failure(response.status, answer));
  } catch {
    result = () => note("bad", "alert", t("sendUnreachable"));
  }
  button.removeAttribute("aria-busy");
  showResult();
}

function remember(id, start) {
  sentAt.set(id, start);
  if (sentAt.size > REMEMBERED_SENDS) sentAt.delete(sentAt.keys().next().value);
}

function showResult() {
  const node = result?.();
  byId("send-result").replaceChildren(...(node ? [node] : []));
}

function note(kind, sign, summary, ...rest) {
  return element("div", { class: `note ${kind}`, "data-kind": kind }, icon(sign), element("div", {}, element("p", {}, summary), ...rest));
}

function success(answer, ms) {
  const reached = answer.totalSockets > 0;
  const summary = reached ? t("sentTo", answer.deliveredTo, answer.totalSockets) : t("sentToAbsent");
  const facts = [
    ["deliveredTo", answer.deliveredTo],
    ["totalSockets", answer.totalSockets],
    ["id", answer.id],
    [t("roundTrip"), duration(ms)],
  ].map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", { dir: "ltr", "data-field": name }, String(value ?? "–"))));
  return note(reached ? "good" : "warn", reached ? "check" : "alert", summary, element("dl", { class: "answer" }, ...facts));
}

function failure(status, answer) {
  const said = [answer?.error, answer?.message].filter((text) => typeof text === "string" && text).join(": ");
  const hint = status === 401 && !byId("api-key-field").hidden && !valueOf("api-key") ? t("needApiKey") : null;
  return note(
    "bad",
    "alert",
    t("sendFailed", status),
    said ? element("p", { class: "said", dir: "auto" }, said) : null,
    hint ? element("p", {}, hint) : null,
  );
}
