// What every page does: theme, live parts, keys. Plain JavaScript, nothing from elsewhere.
"use strict";

(() => {
  const root = document.documentElement;
  const order = ["auto", "light", "dark"];
  const kept = localStorage.getItem("rtnode-theme");
  if (order.includes(kept)) root.dataset.theme = kept;
  for (const button of document.querySelectorAll("[data-theme-switch]")) {
    button.addEventListener("click", () => {
      const dark = root.dataset.theme === "dark"
        || (root.dataset.theme === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
      root.dataset.theme = dark ? "light" : "dark";
      localStorage.setItem("rtnode-theme", root.dataset.theme);
      document.dispatchEvent(new Event("theme"));
    });
  }

  // A live part is asked for again and again while the page is seen; it does not keep a session
  // alive, and a page that a person works in (an open menu, selected text) is left alone.
  for (const part of document.querySelectorAll("[data-live]")) {
    const pause = Number(part.dataset.every) * 1000;
    let text = "";
    const look = async () => {
      const busy = document.hidden || part.contains(document.activeElement) && document.activeElement.matches("input, select, button")
        || String(getSelection()).length > 0;
      if (!busy) {
        try {
          const answer = await fetch(part.dataset.live, { headers: { "X-Live": "1" } });
          if (answer.status === 401) { location.reload(); return; }
          if (answer.ok) {
            const fresh = await answer.text();
            if (fresh !== text) {
              text = fresh;
              const focused = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
              const patient = document.getElementById("patient")?.textContent;
              part.innerHTML = fresh;
              if (patient && document.getElementById("patient")) document.getElementById("patient").textContent = patient;
              if (focused) [...part.querySelectorAll("a[href]")].find((a) => a.getAttribute("href") === focused)?.focus();
            }
          }
        } catch { /* the next look comes */ }
      }
      setTimeout(look, pause);
    };
    setTimeout(look, pause);
  }

  // Keys: "/" search, "g" and a letter for a page, "j" and "k" through a list, Enter opens.
  const pages = { o: "/", j: "/jobs", s: "/studies", a: "/people" };
  let led = false;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
    if (led && pages[event.key]) { location.href = pages[event.key]; return; }
    led = event.key === "g";
    if (led) setTimeout(() => { led = false; }, 1200);
    if (event.key === "/") {
      event.preventDefault();
      document.querySelector("[data-key='/']")?.focus();
    } else if ((event.key === "j" || event.key === "k") && !event.target.closest(".viewer")) {
      const links = [...document.querySelectorAll("[data-rows] tbody tr:not(.why) td:first-child a, [data-rows] tbody tr td:nth-child(2) > a.uid")];
      if (!links.length) return;
      const at = links.indexOf(document.activeElement);
      const next = links[Math.min(links.length - 1, Math.max(0, at + (event.key === "j" ? 1 : -1)))];
      document.querySelectorAll("tr.selected").forEach((row) => row.classList.remove("selected"));
      next.closest("tr").classList.add("selected");
      next.focus();
    }
  });
})();
