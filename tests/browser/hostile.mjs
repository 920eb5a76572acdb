// Notifications of the worst kind arrive from the back end while the page is open.

import { notifications, openPage, run, signIn, task } from "./browser.mjs";

await run(async (newContext) => {
  const page = await openPage(await newContext({ locale: "en-GB" }));
  await signIn(page, "123");
  for (const notification of task.notifications) {
    const response = await fetch(`${task.url}/broadcast`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ userIds: ["123"], notification }),
    });
    if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
  }
  const shown = await notifications(page, task.notifications.length);
  const links = page.locator("[data-testid=notification] a");
  for (let index = 0; index < (await links.count()); index += 1) await links.nth(index).hover();
  return { shown, hacked: await page.evaluate(() => window.hacked ?? null) };
});
