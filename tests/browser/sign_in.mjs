// Sign in with pasted tokens, good and bad.

import { byTestId, notifications, openPage, run, task } from "./browser.mjs";

await run(async (newContext) => {
  const page = await openPage(await newContext({ locale: "en-GB" }));
  const token = page.locator(byTestId("token"));
  if (!(await token.isVisible())) await page.locator("#token-own summary").click();

  const seen = [];
  for (const { userId, value, state } of task.signIns) {
    await token.fill(value);
    await page.locator(byTestId("user-id")).fill(userId);
    await page.locator(byTestId("sign-in")).click();
    const card = page.locator(byTestId("connection")).nth(seen.length);
    await card.and(page.locator(`[data-state="${state}"]`)).waitFor();
    const error = card.locator(byTestId("connection-error"));
    seen.push({
      state: await card.getAttribute("data-state"),
      error: (await error.isVisible()) ? await error.innerText() : null,
    });
  }

  let sent = null;
  if (task.apiKey) {
    await page.locator(byTestId("composer-users")).fill("123");
    await page.locator(byTestId("api-key")).fill(task.apiKey);
    await page.locator(byTestId("send")).click();
    sent = await notifications(page, 1);
  }
  return { seen, sent, apiKeyField: await page.locator(byTestId("api-key")).isVisible() };
});
