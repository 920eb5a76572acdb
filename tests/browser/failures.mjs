// What the page says if the server is away, refuses, or closes a connection: in the language of the page.

import { byTestId, openPage, run, signIn, speakHebrew, task } from "./browser.mjs";

await run(async (newContext) => {
  const context = await newContext({ locale: "en-GB" });
  const page = await openPage(context);
  if (task.language === "he") await speakHebrew(page);
  const part = (name) => page.locator(byTestId(name));
  const seen = {};

  await signIn(page, "123");
  const card = part("connection").first();
  const problem = async (state) => {
    await card.and(page.locator(`[data-state="${state}"]`)).waitFor();
    await card.locator(byTestId("connection-error")).waitFor();
    return card.locator(byTestId("connection-error")).innerText();
  };

  // The network is away: the transport is lost, then no attempt succeeds.
  await context.setOffline(true);
  await page.locator(byTestId("connection-error"), { hasText: task.unreachable }).waitFor();
  seen.unreachable = await problem("reconnecting");
  await part("send").click();
  await page.locator(`${byTestId("send-result")} .bad`).waitFor();
  seen.send = await part("send-result").innerText();
  await part("sign-in").click();
  await part("sign-in-error").waitFor();
  seen.signIn = await part("sign-in-error").innerText();
  await context.setOffline(false);
  await card.and(page.locator('[data-state="recovered"]')).waitFor();

  // Statuses of the handshake, and a transport that ends.
  seen.refused = {};
  for (const status of [403, 429, 503, 502]) {
    await page.route("**/socket.io/**", (route) => route.fulfill({ status, body: "{}" }));
    await part("transport").selectOption("polling");
    await part("user-id").fill(`user-${status}`);
    await part("sign-in").click();
    const refused = page.locator(`${byTestId("connection")}[data-user="user-${status}"]`);
    await refused.locator(byTestId("connection-error")).waitFor();
    seen.refused[status] = await refused.locator(byTestId("connection-error")).innerText();
    await refused.locator(byTestId("connection-remove")).click();
    await page.unroute("**/socket.io/**");
  }

  // A refused token.
  const own = page.locator("#token-own summary");
  if (!(await part("token").isVisible())) await own.click();
  await part("token").fill("not-a-token");
  await part("user-id").fill("789");
  await part("sign-in").click();
  const bad = page.locator(`${byTestId("connection")}[data-user="789"]`);
  await bad.and(page.locator('[data-state="disconnected"]')).waitFor();
  seen.token = await bad.locator(byTestId("connection-error")).innerText();
  return { seen };
});
