// The page: it reads its settings, loads the official Socket.IO client, and opens a card for each sign-in.

import { byId, here } from "./dom.js";
import { latencyOf, startComposer } from "./composer.js";
import { Connection } from "./connection.js";
import { fetchErrorText } from "./failures.js";
import { firstLanguage, language, onLanguageChange, setLanguage, t } from "./language.js";
import { refreshStats, startStats } from "./stats.js";

const connections = [];
let settings = null;
let trouble = null; // () => string
let signInError = null; // () => string

async function start() {
  startLanguage();
  settings = await readSettings();
  if (!settings) return;
  showSettings();
  startComposer({ needsApiKey: settings.needsApiKey, users: usersHere, onSent: refreshStats });
  startStats();
  try {
    await loadClient(settings.client);
  } catch {
    complain(() => t("clientMissing", settings.client.src));
    return;
  }
  startSignIn();
}

// ---- language ----

function startLanguage() {
  for (const choice of document.querySelectorAll("[name=language]")) {
    choice.addEventListener("change", () => setLanguage(choice.value, { remember: true }));
  }
  onLanguageChange(() => {
    if (trouble) byId("trouble-text").textContent = trouble();
    showSignInError();
    showSignInLabel();
    showMode();
  });
  setLanguage(firstLanguage());
  byId(`language-${language()}`).checked = true;
}

// ---- settings and the client ----

async function readSettings() {
  try {
    const response = await fetch(here("demo/config.json"), { cache: "no-store" });
    if (!response.ok) throw new Error(String(response.status));
    return await response.json();
  } catch {
    complain(() => t("configMissing"));
    return null;
  }
}

function showSettings() {
  byId("version").textContent = settings.version ? `v${settings.version}` : "";
  const field = byId("token-field");
  if (settings.canMint) {
    byId("token-own").hidden = false;
    byId("token-own").append(field);
  }
  field.hidden = false;
  for (const option of byId("transport").options) option.disabled = transportsOf(option.value).length === 0;
  showMode();
}

/** Return the transports of a choice that the server has. */
function transportsOf(choice) {
  return settings.transports.filter((name) => choice === "auto" || choice === name);
}

function showMode() {
  const known = settings && ["development", "production"].includes(settings.mode);
  byId("mode").textContent = known ? t(settings.mode) : "";
  byId("mode").hidden = !known;
}

function loadClient({ src, integrity }) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = src;
    if (integrity) {
      script.integrity = integrity;
      script.crossOrigin = "anonymous";
    }
    script.addEventListener("load", () => (typeof window.io === "function" ? resolve() : reject(new Error("no io"))));
    script.addEventListener("error", () => reject(new Error("not loaded")));
    document.head.append(script);
  });
}

function complain(text) {
  trouble = text;
  byId("trouble-text").textContent = text();
  byId("trouble").hidden = false;
}

// ---- sign in ----

function startSignIn() {
  byId("sign-in-form").addEventListener("submit", (event) => {
    event.preventDefault();
    signIn();
  });
  byId("user-id").addEventListener("input", showSignInLabel);
  byId("token").addEventListener("input", nameFromToken);
  byId("sign-in").disabled = false;
  showSignInLabel();
}

async function signIn() {
  const userId = byId("user-id").value.trim();
  const pasted = byId("token").value.trim();
  const error = (text) => {
    signInError = text;
    showSignInError();
  };
  error(null);

  const mints = settings.canMint && !pasted;
  if (mints && !userId) return error(() => t("needUser"));
  if (!mints && !pasted) return error(() => t("needToken"));

  let credentials = { token: pasted, expiresAt: null };
  try {
    if (mints) credentials = await mint(userId);
  } catch (problem) {
    return error(() => t("mintFailed", fetchErrorText(problem)));
  }

  const connection = new Connection({
    io: window.io,
    userId,
    credentials,
    renew: mints ? () => mint(userId) : null,
    transports: transportsOf(byId("transport").value),
    latencyOf,
    announce,
    onChange: changed,
    onRemove: removed,
  });
  connections.push(connection);
  byId("connections").append(connection.node);
  changed();
  reveal(connection.node);
}

function showSignInError() {
  byId("sign-in-error").hidden = !signInError;
  byId("sign-in-error-text").textContent = signInError?.() ?? "";
}

/** Select the user id for the next sign-in. On a phone the cards are in a row: scroll to the new one instead. */
function reveal(card) {
  const row = card.parentElement;
  if (getComputedStyle(row).display === "flex") card.scrollIntoView({ block: "nearest", inline: "start" });
  else byId("user-id").select();
}

/** Return a token of the server. Only a development server on this machine issues tokens. */
async function mint(userId) {
  const response = await fetch(here("demo/token"), {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ userId }),
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.message ?? answer.error ?? `HTTP ${response.status}`);
  return { token: answer.token, expiresAt: answer.expiresAt ?? null };
}

/** Fill in the user id of a pasted token. */
function nameFromToken() {
  try {
    const part = byId("token").value.trim().split(".")[1];
    const bytes = Uint8Array.from(atob(part.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
    const claims = JSON.parse(new TextDecoder().decode(bytes));
    const user = claims.id ?? claims.userId ?? claims.sub;
    if (user != null) byId("user-id").value = String(user);
    showSignInLabel();
  } catch {
    // not a complete token
  }
}

function showSignInLabel() {
  const typed = byId("user-id").value.trim();
  const again = typed !== "" && connections.some((connection) => connection.userId === typed);
  byId("sign-in-label").textContent = t(again ? "signInAgain" : "signIn");
}

// ---- all connections ----

function usersHere() {
  const signedIn = connections.filter(({ state }) => state === "authenticated" || state === "recovered");
  return [...new Set(signedIn.map(({ userId }) => userId))];
}

function changed() {
  const seen = new Map();
  for (const { userId } of connections) seen.set(userId, (seen.get(userId) ?? 0) + 1);
  const index = new Map();
  for (const connection of connections) {
    index.set(connection.userId, (index.get(connection.userId) ?? 0) + 1);
    connection.place(index.get(connection.userId), seen.get(connection.userId));
  }
  byId("no-connections").hidden = connections.length > 0;
  showSignInLabel();
  refreshStats();
}

function removed(connection) {
  connections.splice(connections.indexOf(connection), 1);
  changed();
  byId("user-id").focus();
}

function announce(text) {
  byId("announcements").textContent = text;
}

start();
