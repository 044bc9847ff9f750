// Long computations in one worker. A job is a generator function of an engine file: GPT.ablation.effects(model, data) gives
// one result after another. A new job ends the earlier one of the same name, and all running jobs take turns.
//
//   GPT.jobs.ask("ablation.effects", { tokens, by: "zero", at, answer }, (result, isLast) => {...});
//   await GPT.jobs.done();                                                 no job is running

var GPT = GPT || {};
(() => {
  "use strict";
  const ENGINE = ["maths", "tokenizer", "forward", "ablation", "patching", "rounding"];

  let [worker, last] = [null, 0];
  const waiting = new Map(); // name -> { id, onresult }
  let [isDone, tellDone] = [Promise.resolve(), () => {}];

  /** Runs in the worker: see worker.js. It returns to its messages after each result. */
  function handler(GPT, answer) {
    let model = null;
    const running = new Map(); // name -> { id, results }
    let isBusy = false;

    function turn() {
      for (const [name, { id, results }] of running) {
        const { value, done } = results.next();
        if (done) running.delete(name);
        answer({ name, id, value, done });
      }
      isBusy = running.size > 0;
      if (isBusy) setTimeout(turn);
    }

    return ({ exported, name, id, data }) => {
      if (!data) {
        running.delete(name);
        return;
      }
      model ??= GPT.model || GPT.load(exported);
      const [file, job] = name.split(".");
      running.set(name, { id, results: GPT[file][job](model, data) });
      if (!isBusy) setTimeout(turn);
      isBusy = true;
    };
  }

  function start() {
    worker = GPT.worker(ENGINE, handler);
    worker.onanswer = ({ name, id, value, done }) => {
      const job = waiting.get(name);
      if (!job || job.id !== id) return; // ended by a newer one
      if (done) waiting.delete(name);
      if (value !== undefined || done) job.onresult(value, done);
      if (!waiting.size) tellDone();
    };
  }

  function ask(name, data, onresult) {
    if (!waiting.size) isDone = new Promise((tell) => { tellDone = tell; });
    const isFirst = !worker;
    if (isFirst) start();
    waiting.set(name, { id: (last += 1), onresult });
    worker.post({ name, data, id: last, exported: isFirst ? GPT.exported : null });
  }

  /** Ends a job. */
  function stop(name) {
    if (!waiting.delete(name)) return;
    worker.post({ name });
    if (!waiting.size) tellDone();
  }

  GPT.jobs = { ask, stop, done: () => isDone };
})();
