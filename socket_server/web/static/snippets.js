// The form as code: the request of a back end with curl, and a browser client that receives it.

import { byId, here } from "./dom.js";
import { onLanguageChange, t } from "./language.js";

const COPIED_FOR_MS = 1500;

let form = null;

/** form(): {body: the body of the request, needsApiKey}. */
export function startSnippets(readForm) {
  form = readForm;
  for (const choice of document.querySelectorAll("[name=snippet]")) choice.addEventListener("change", showSnippets);
  byId("copy-snippet").addEventListener("click", copy);
  onLanguageChange(showSnippets);
  showSnippets();
}

/** Show the chosen code for the form as it is now. */
export function showSnippets() {
  if (form) byId("snippet").textContent = snippet();
}

function snippet() {
  return byId("snippet-browser").checked ? browserClient() : curl(form());
}

function curl({ body, needsApiKey }) {
  const json = JSON.stringify(body, null, 2).replaceAll("'", "'\\''");
  const key = needsApiKey ? `  -H "Authorization: Bearer $API_KEY" \\\n` : "";
  return `curl ${here("broadcast")} \\\n  -H "Content-Type: application/json" \\\n${key}  -d '${json}'`;
}

/** The client of docs/clients.md, for the address of this page. */
function browserClient() {
  const path = here("socket.io/").pathname;
  const pathOption = path === "/socket.io/" ? "" : `\n  path: ${JSON.stringify(path)},`;
  return `import { io } from "socket.io-client";

// getToken() asks your back end for the token of the signed-in user
const socket = io(${JSON.stringify(location.origin)}, {${pathOption}
  auth: (send) => getToken().then(
    (token) => send({ token }),
    () => socket.io.engine.close(), // no token: the client reconnects and asks again
  ),
});

let refusal = null;
socket.on("auth_error", ({ code }) => { refusal = code; });
socket.on("disconnect", (reason) => {
  if (reason !== "io server disconnect") return; // the client reconnects by itself
  if (["expired_token", "auth_timeout", "internal"].includes(refusal)) setTimeout(() => socket.connect(), 2000);
});

socket.on("auth_success", ({ recovered }) => {
  if (!recovered) console.log("load your data again: some notifications are no longer kept");
});
socket.on("notification", (notification, id) => {
  console.log(id, notification.title);
});`;
}

async function copy() {
  const label = byId("copy-snippet").lastElementChild;
  try {
    await navigator.clipboard.writeText(snippet());
    label.textContent = t("copied");
    setTimeout(() => (label.textContent = t("copy")), COPIED_FOR_MS);
  } catch {
    getSelection()?.selectAllChildren(byId("snippet")); // browsers give no clipboard to pages without https
  }
}
