// What every scenario needs: a browser, and a record of what its pages requested and of what went wrong.

import { createRequire } from "node:module";

export const require = createRequire(new URL("../clients/package.json", import.meta.url));
const { chromium } = require("playwright-core");

const ARGUMENTS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

export const task = JSON.parse(process.argv[2]);
export const byTestId = (name) => `[data-testid="${name}"]`;

/** Run a scenario in a new browser, and print its result and the record as JSON. */
export async function run(scenario) {
  const browser = await chromium.launch({ executablePath: task.browser, args: ARGUMENTS });
  try {
    const record = { requests: [], problems: [] };
    const newContext = (options) => observed(browser, record, options);
    const result = await scenario(newContext, record);
    console.log(JSON.stringify({ ...result, record }));
  } finally {
    await browser.close();
  }
}

/** Return a browser context. Requests to other machines are recorded and aborted. */
async function observed(browser, record, options) {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(15_000);
  await context.route(
    (url) => url.hostname !== "127.0.0.1" && url.hostname !== "localhost",
    (route) => route.abort(),
  );
  await context.exposeFunction("reportViolation", (text) => record.problems.push(`CSP: ${text}`));
  await context.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) =>
      window.reportViolation(`${event.violatedDirective} ${event.blockedURI}`),
    );
  });
  context.on("request", (request) => record.requests.push(request.url()));
  context.on("page", (page) => {
    page.on("websocket", (socket) => record.requests.push(socket.url()));
    page.on("pageerror", (error) => record.problems.push(`error: ${error.message}`));
    page.on("dialog", (dialog) => {
      record.problems.push(`dialog: ${dialog.message()}`);
      dialog.dismiss();
    });
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) record.problems.push(`console: ${message.text()}`);
    });
  });
  return context;
}

/** Open the page of the server, ready to sign in. */
export async function openPage(context, url = task.url) {
  const page = await context.newPage();
  await page.goto(url);
  await page.locator(`${byTestId("sign-in")}:enabled`).waitFor();
  return page;
}

/** Open a connection for a user, and wait until it is authenticated. */
export async function signIn(page, userId) {
  const count = await page.locator(byTestId("connection")).count();
  await page.locator(byTestId("user-id")).fill(userId);
  await page.locator(byTestId("sign-in")).click();
  await page.locator(byTestId("connection")).nth(count).and(page.locator('[data-state="authenticated"]')).waitFor();
}

export async function speakHebrew(page) {
  await page.locator("label", { has: page.locator(byTestId("language-he")) }).click();
}

/** Choose a radio button, which is hidden behind its label. */
export async function choose(page, name) {
  await page.locator("label", { has: page.locator(byTestId(name)) }).click();
}

/** Send a notification as a back end does, in development without a key. */
export async function broadcast(userIds, notification) {
  const response = await fetch(new URL("broadcast", task.url.endsWith("/") ? task.url : `${task.url}/`), {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ userIds, notification }),
  });
  if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
}

/** Wait until the page shows `count` notifications. Return what it shows of them, newest first. */
export async function notifications(page, count) {
  const items = page.locator(byTestId("notification"));
  await items.nth(count - 1).waitFor();
  return items.evaluateAll((nodes) =>
    nodes.map((node) => {
      const part = (name) => node.querySelector(`[data-testid="notification-${name}"]`);
      const title = part("title");
      return {
        title: title.textContent,
        dir: title.getAttribute("dir"),
        direction: getComputedStyle(title).direction,
        latency: part("latency")?.textContent ?? null,
        offset: part("offset")?.textContent ?? null,
        links: [...node.querySelectorAll("a")].map((link) => link.getAttribute("href")),
        images: [...node.querySelectorAll("img")].map((image) => image.getAttribute("src")),
        markup: [...node.querySelectorAll("script, iframe, object, b, h1")].length,
      };
    }),
  );
}
