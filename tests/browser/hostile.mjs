// A back end sends hostile notifications while the page is open.

import { broadcast, notifications, openPage, run, signIn, task } from "./browser.mjs";

await run(async (newContext) => {
  const page = await openPage(await newContext({ locale: "en-GB" }));
  await signIn(page, "123");
  for (const notification of task.notifications) await broadcast(["123"], notification);
  const shown = await notifications(page, task.notifications.length);
  const links = page.locator("[data-testid=notification] a");
  for (let index = 0; index < (await links.count()); index += 1) await links.nth(index).hover();
  return { shown, hacked: await page.evaluate(() => window.hacked ?? null) };
});
