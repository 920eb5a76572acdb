// On phones, nothing is wider than the screen: before and after signing in and receiving, in both languages.

import { byTestId, notifications, openPage, run, signIn, speakHebrew, task } from "./browser.mjs";

await run(async (newContext) => {
  const widths = [];
  for (const width of task.widths) {
    const context = await newContext({ locale: "en-GB", viewport: { width, height: 780 }, isMobile: true, hasTouch: true });
    const page = await openPage(context);
    const measure = async (when) => {
      const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      widths.push({ when: `${width} px, ${when}`, over });
    };
    await measure("empty");
    await signIn(page, task.userId);
    await signIn(page, task.userId);
    await page.locator(byTestId("composer-users")).fill(task.userId);
    await page.locator(byTestId("composer-title-en")).fill("unbreakable".repeat(20));
    await page.locator(byTestId("composer-title-he")).fill("מילהארוכה".repeat(20));
    await page.locator(byTestId("send")).click();
    await notifications(page, 2);
    await measure("with notifications, in English");
    await speakHebrew(page);
    await measure("with notifications, in Hebrew");
    await context.close();
  }
  return { widths };
});
