// Keeps the trace of the reader's text: the model reads each text as soon as it is typed.
//
//   const live = GPT.live(model, (trace) => { ... });      called with the trace of the tokens that were wanted last
//   live.read(tokens);
//
// A token or two, as a key brings them, are read at once, so that letter and picture appear in the same frame. More of them
// are read in a worker, so that the page answers in the meantime.

var GPT = GPT || {};
(() => {
  "use strict";
  const ENGINE = ["maths", "tokenizer", "forward", "reading"];
  const FEW = 3; // tokens that are read at once

  GPT.live = (model, onread) => {
    const worker = GPT.worker(ENGINE, readInParts);
    let [trace, wanted, request] = [null, [], 0];

    /** A part replaces what follows the unchanged beginning of the text. */
    function take(part) {
      trace = GPT.reading.joined(model, trace, part);
      if (trace.T === wanted.length) onread(trace);
    }

    worker.onanswer = (answer) => {
      if (answer.request === request) take(GPT.reading.unpacked(answer.part)); // else a newer text has taken its place
    };
    worker.post({ exported: GPT.exported });

    function read(tokens) {
      wanted = tokens;
      request += 1;
      const past = trace ? GPT.reading.unchanged(trace.tokens, tokens) : 0;
      if (trace && tokens.length - past <= FEW) take(GPT.reading.next(model, trace, tokens, past));
      else worker.post({ request, tokens, past });
    }
    return { read };
  };

  /** The handler in the worker. It reads a long text in parts, so that a newer text can take its place in between. */
  function readInParts(GPT, answer) {
    const MOST = 32; // tokens in one part
    let [reader, wanted, isReading] = [null, null, false];

    function next() {
      const { request, tokens, past } = wanted;
      const { message, buffers } = GPT.reading.packed(reader.read(tokens, past, MOST));
      wanted.past = Infinity; // the page now has all that is in the cache
      answer({ request, part: message }, buffers);
      isReading = reader.tokens.length < tokens.length;
      if (isReading) setTimeout(next); // messages that have arrived come first
    }

    return (message) => {
      if (message.exported) reader = GPT.reading.reader(GPT.model || GPT.load(message.exported)); // the page has a model
      else {
        wanted = message;
        if (!isReading) next();
      }
    };
  }
})();
