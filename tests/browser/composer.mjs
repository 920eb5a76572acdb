// The form: recipients that are none, a long text, more notifications than are listed, and the code of a browser client.

import { broadcast, byTestId, choose, notifications, openPage, run, signIn, task } from "./browser.mjs";

await run(async (newContext) => {
  const page = await openPage(await newContext({ locale: task.locale, colorScheme: "light" }));
  const part = (name) => page.locator(byTestId(name));
  await signIn(page, "123");

  const refusals = [];
  for (const users of ["", " ", " , ", ",,,"]) {
    await part("composer-users").fill(users);
    await part("send").click();
    refusals.push({
      text: await page.locator(`${byTestId("send-result")} .bad`).innerText(),
      invalid: await part("composer-users").getAttribute("aria-invalid"),
      focused: await part("composer-users").evaluate((node) => node === document.activeElement),
    });
  }
  const posted = () => page.evaluate(() => performance.getEntriesByType("resource").filter(({ name }) => name.endsWith("/broadcast")).length);
  const postedWithoutUsers = await posted();
  await part("composer-users").fill("123");
  const invalidAfter = await part("composer-users").getAttribute("aria-invalid");

  await broadcast(["123"], { title: "long", body: task.body });
  await notifications(page, 1);
  const body = part("notification-body");
  const expand = part("notification").locator(byTestId("expand")).and(page.locator(":visible"));
  const height = async () => (await body.boundingBox()).height;
  const collapsed = { height: await height(), text: (await body.textContent()).length, label: await expand.innerText() };
  await expand.click();
  const expanded = { height: await height(), text: await body.textContent(), state: await expand.getAttribute("aria-expanded") };
  await expand.click();
  const again = { height: await height(), state: await expand.getAttribute("aria-expanded") };
  await broadcast(["123"], { title: "short", body: "short" });
  await notifications(page, 2);
  const buttonsOfShort = await part("notification").first().locator(byTestId("expand")).and(page.locator(":visible")).count();

  const cutBefore = await part("notifications-cut").isVisible();
  for (let number = 0; number < 60; number += 1) await broadcast(["123"], { title: String(number) });
  await page.locator(byTestId("connection-received"), { hasText: "62" }).waitFor();
  const cut = { text: await part("notifications-cut").innerText(), listed: await part("notification").count() };

  await part("snippets").click();
  const curl = await part("snippet").textContent();
  await choose(page, "snippet-browser");
  const browserCode = await part("snippet").textContent();
  return {
    refusals, postedWithoutUsers, invalidAfter, collapsed, expanded, again, buttonsOfShort, cutBefore, cut, curl, browserCode,
    received: await runCode(page, browserCode),
  };
});

/** Run the code as a page with the official client does; return what it logs for one notification. */
async function runCode(page, code) {
  const lines = [];
  page.on("console", (message) => lines.push(message.text()));
  const minting = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ userId: "456" }) };
  // As an expression of the debugger: the page's policy forbids eval().
  await page.evaluate(`(async () => {
    const io = window.io;
    const getToken = async () => (await (await fetch("${task.url}/demo/token", ${JSON.stringify(minting)})).json()).token;
    ${code.replace(/^import .*$/m, "")}
    await new Promise((done) => socket.on("auth_success", done));
  })()`);
  const logged = page.waitForEvent("console", (message) => message.text().includes("for the code of the page"));
  await broadcast(["456"], { title: "for the code of the page" });
  await logged;
  return lines;
}
