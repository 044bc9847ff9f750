// Chapters: which one is being read, and links that stay at their chapter.
//
//   GPT.chapters.current                      the id of the chapter that is being read
//   GPT.chapters.watch((id) => ...)           called now, and whenever another chapter is being read
//   GPT.chapters.start(drawAll)               drawAll() draws the diagrams that were out of view until now
//
// A link is followed by the browser itself, so the address, Back and Forward work as everywhere. But diagrams above the
// chapter may still grow afterwards, so the chapter is kept in its place for some seconds, or until the reader moves on. A fold
// around the target is opened.

var GPT = GPT || {};
(() => {
  "use strict";
  const PATIENCE = 5000; // milliseconds
  const watchers = [];
  const sections = () => Array.from(document.querySelectorAll("main > section[id]"));
  let kept = null; // { element, top, until }: keeps the element at this distance from the top of the window

  /** Calls onchange(id) now, and whenever the reader comes to another chapter. */
  function watch(onchange) {
    watchers.push(onchange);
    if (GPT.chapters.current) onchange(GPT.chapters.current);
  }

  /** The chapter that is being read is the last one that begins in the upper third of the space below the text box. */
  function follow() {
    const top = document.querySelector(".reader").getBoundingClientRect().bottom;
    const line = Math.max(0, top) + (innerHeight - Math.max(0, top)) / 3;
    const all = sections();
    const isAtEnd = scrollY > 0 && scrollY + innerHeight > document.documentElement.scrollHeight - 2;
    const begun = isAtEnd ? all : all.filter((section) => section.getBoundingClientRect().top <= line);
    const { id } = begun.at(-1) || all[0];
    if (id === GPT.chapters.current) return;
    GPT.chapters.current = id;
    for (const onchange of watchers) onchange(id);
  }

  /** Marks the chapter in the contents. */
  function mark(id) {
    for (const link of document.querySelectorAll(".contents a")) {
      if (link.hash === `#${id}`) link.setAttribute("aria-current", "location");
      else link.removeAttribute("aria-current");
    }
  }

  const target = () => document.getElementById(decodeURIComponent(location.hash.slice(1)));

  /** Where a link leads: below the text box, with the margin that the style sheet gives. */
  function landing(element) {
    const page = getComputedStyle(document.documentElement);
    return (parseFloat(page.scrollPaddingTop) || 0) + (parseFloat(getComputedStyle(element).scrollMarginTop) || 0);
  }

  /** Keeps an element at its place in the window until the reader moves. */
  function keep(element, top) {
    kept = element && { element, top, until: performance.now() + PATIENCE };
    stay();
  }

  function stay() {
    if (!kept || performance.now() > kept.until) return;
    const { element, top } = kept;
    const short = element.getBoundingClientRect().top - (top ?? landing(element));
    if (Math.abs(short) >= 1) scrollBy({ top: short, behavior: "instant" });
  }

  /** Remembers the chapter and the distance to it, for the time when the reader comes back to this page. */
  function remember() {
    const element = document.getElementById(GPT.chapters.current);
    const top = element && element.getBoundingClientRect().top;
    history.replaceState({ ...history.state, chapter: element?.id, top, scrolled: scrollY }, "");
  }

  /** The place where the reader was before reloading, or the chapter in the address. */
  function arrive() {
    const [{ type }] = performance.getEntriesByType("navigation");
    const { chapter, top, scrolled } = history.state || {};
    GPT.folds.reveal(target());
    if (type === "navigate" || !chapter) keep(target());
    else if (scrolled > 0) keep(document.getElementById(chapter), top);
  }

  function start(drawAll) {
    const room = new ResizeObserver(() => {
      const { position } = getComputedStyle(document.querySelector(".reader"));
      const height = position === "sticky" ? document.querySelector(".reader").offsetHeight : 0;
      document.documentElement.style.setProperty("--reader-height", `${height}px`);
      stay();
      follow();
    });
    room.observe(document.querySelector(".reader"));
    room.observe(document.querySelector("main"));
    addEventListener("click", (event) => {
      const link = event.target.closest?.("a[href^='#']");
      if (link && !event.defaultPrevented) requestAnimationFrame(() => keep(document.getElementById(link.hash.slice(1))));
    });
    const prepare = ({ target: pressed }) => {
      const link = pressed.closest?.("a[href^='#']");
      if (!link) return;
      GPT.folds.reveal(document.getElementById(link.hash.slice(1)));
      drawAll();
    };
    addEventListener("click", prepare, { capture: true });
    addEventListener("popstate", ({ state }) => {
      drawAll();
      const before = document.getElementById(state?.chapter);
      requestAnimationFrame(() => keep(before || target(), before ? state.top : null));
    });
    for (const moves of ["wheel", "touchmove", "pointerdown", "keydown"]) {
      addEventListener(moves, () => (kept = null), { capture: true, passive: true });
    }
    let rest = 0;
    addEventListener(
      "scroll",
      () => {
        follow();
        clearTimeout(rest);
        rest = setTimeout(remember, 200);
      },
      { passive: true },
    );
    addEventListener("resize", follow);
    watch(mark);
    follow();
    arrive();
  }

  GPT.chapters = { current: null, watch, start };
})();
