// A phone: nothing is wider than the screen, and the Send button and the result are always in sight.

import { byTestId, notifications, openPage, run, signIn, speakHebrew, task } from "./browser.mjs";

await run(async (newContext) => {
  const widths = [];
  const sights = [];
  for (const [width, height] of task.screens) {
    const context = await newContext({ locale: "en-GB", viewport: { width, height }, isMobile: true, hasTouch: true });
    const page = await openPage(context);
    const measure = async (when) => {
      const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      widths.push({ when: `${width} px, ${when}`, over });
    };
    const look = async (when, ...names) => {
      for (const name of names) {
        const box = await page.locator(byTestId(name)).boundingBox();
        const inSight = box !== null && box.height > 0 && box.y >= 0 && box.y + box.height <= height;
        sights.push({ when: `${width} x ${height}, ${when}, ${name}`, inSight });
      }
    };
    await measure("empty");
    await look("empty", "send");
    await signIn(page, task.userId);
    await signIn(page, task.userId);
    await page.locator(byTestId("composer-users")).fill(task.userId);
    await page.locator(byTestId("composer-title-en")).fill("unbreakable".repeat(20));
    await page.locator(byTestId("composer-title-he")).fill("מילהארוכה".repeat(20));
    await page.locator(byTestId("send")).click();
    await notifications(page, 2);
    await measure("with notifications, in English");
    for (const place of ["sign-in", "connections", "composer-users", "snippets"]) {
      await page.locator(byTestId(place)).scrollIntoViewIfNeeded();
      await look(`at ${place}`, "send", "send-result");
    }
    // The last control can be scrolled out from under the bar.
    await page.evaluate(() => window.scrollTo(0, document.body.scrollHeight));
    await page.locator(byTestId("snippets")).click({ trial: true });
    await speakHebrew(page);
    await measure("with notifications, in Hebrew");
    await context.close();
  }
  return { widths, sights };
});
