// From the whole to the part: a press on a part of the map, or on a line of the contents, leads to its chapter, and the part
// grows into the chapter's figure. The link itself is followed by the browser, so the address and Back work as everywhere;
// where view transitions are unknown, or motion is not wanted, nothing else happens.

(() => {
  "use strict";
  const isStill = () => !document.startViewTransition || matchMedia("(prefers-reduced-motion: reduce)").matches;
  let isFollowing = false; // while the link is followed inside a transition

  /** The element that the part becomes: the chapter's first figure, or its heading. */
  const figureOf = (section) => section.querySelector(".diagram") || section.querySelector("h2");

  /** The heading gets the focus, so that the keyboard goes on from the chapter. */
  function arrive(section) {
    const heading = section.querySelector("h2 a") || section;
    heading.focus({ preventScroll: true });
  }

  const isVisible = (element) => {
    const { top, bottom, width } = element.getBoundingClientRect();
    return width > 0 && bottom > 0 && top < innerHeight;
  };

  function zoom(link, section) {
    const part = link.querySelector(".small-part") || link;
    if (!isVisible(part)) return follow(link, section);
    part.style.viewTransitionName = "part";
    const figure = figureOf(section);
    const moving = document.startViewTransition(async () => {
      part.style.viewTransitionName = "";
      follow(link, section);
      await new Promise((done) => setTimeout(done)); // the browser scrolls after the click
      figure.style.viewTransitionName = isVisible(figure) ? "part" : "";
    });
    const end = () => (figure.style.viewTransitionName = "");
    moving.ready.catch(() => {});
    moving.finished.then(end, end);
  }

  function follow(link, section) {
    isFollowing = true;
    document.documentElement.style.scrollBehavior = "auto";
    link.click();
    isFollowing = false;
    arrive(section);
  }

  addEventListener("click", (event) => {
    const link = event.target.closest?.(".contents a[href^='#'], .model-map a[href^='#']");
    if (!link || isFollowing || event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const section = document.getElementById(link.hash.slice(1));
    if (!section) return;
    if (isStill()) {
      setTimeout(() => arrive(section));
      return;
    }
    event.preventDefault();
    event.stopImmediatePropagation();
    zoom(link, section);
  }, { capture: true });
})();
