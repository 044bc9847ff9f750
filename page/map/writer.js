// "Write on": the model continues the reader's text, token by token, until it is paused, the text ends, or the reader writes.

(() => {
  "use strict";
  const TEMPERATURE = 0.8;
  const LONGEST = 60; // tokens at a time
  const PAUSE = 380; // milliseconds between two tokens

  const wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

  /** A sampled token that can be appended to a text, or null at the end of the text. */
  function next() {
    const { state, piece, model } = GPT.app;
    const probs = GPT.sampling.softmax(GPT.sampling.temperature(state.trace.logits(state.tokens.length - 1), TEMPERATURE));
    for (let tries = 0; tries < 50; tries += 1) {
      const found = piece(GPT.sampling.draw(probs, Math.random()));
      if (found.id === model.tokenizer.eot_id) return null;
      if (!found.text.includes("\ufffd")) return found; // a part of a character is no text
    }
    return null;
  }

  const WORDS = `Each token is drawn by chance from these probabilities, at temperature ${TEMPERATURE}: it is not always the likeliest.`;

  /** Makes a button write and pause; changed(words) is called with what happens while it writes, and with "" when it ends. */
  GPT.map.writer = (button, { changed }) => {
    let run = 0; // counts the runs, so that an old one ends

    const show = (isWriting) => {
      button.textContent = isWriting ? "Pause" : "Write on";
      changed(isWriting ? WORDS : "");
    };

    function stop() {
      if (run % 2) show(false);
      run += run % 2;
    }

    async function write() {
      const own = (run += 1); // odd while writing
      show(true);
      for (let i = 0; i < LONGEST && own === run; i += 1) {
        const found = next();
        if (!found) break;
        const expected = GPT.app.state.text + found.text;
        GPT.app.write(expected, { joins: i > 0 }); // one step back takes back all
        await wait(PAUSE);
        await GPT.app.settled?.();
        if (GPT.app.state.text !== expected) break; // the reader has written something else
      }
      if (own === run) stop();
    }

    button.addEventListener("click", () => (run % 2 ? stop() : write()));
    document.getElementById("text").addEventListener("input", stop);
    addEventListener("click", ({ target }) => target.closest?.("[data-follow]") && stop()); // the tour stays at one text
    show(false);
    return { stop };
  };
})();
