// A listening test; needs player.js.

const test = JSON.parse(document.getElementById("test").textContent);
const place = `sdc-mushra-${test.test}`;
const WORDS = ["Bad", "Poor", "Fair", "Good", "Excellent"];
const HEARD = 0.45; // seconds after which a version counts as heard

const find = (selector) => document.querySelector(selector);
const stage = find("#trial");
const deck = find(".deck");

// What the listener did so far survives closing the page. In a private window nothing is kept, and the test works.
const attempt = (action) => {
  try {
    return action(localStorage);
  } catch {
    return null;
  }
};
const memory = {
  load: () => attempt((store) => JSON.parse(store.getItem(place))),
  save: (session) => attempt((store) => store.setItem(place, JSON.stringify(session))),
  clear: () => attempt((store) => store.removeItem(place)),
};

// The order follows from the seed: a linear congruential generator modulo 2^32, of which the upper bits count.
function shuffled(list, seed) {
  let state = seed >>> 0;
  const next = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) >>> 8;
  for (let warm = 0; warm < 8; warm++) next();
  const result = [...list];
  for (let last = result.length - 1; last > 0; last--) {
    const other = Math.floor((next() / 2 ** 24) * (last + 1));
    [result[last], result[other]] = [result[other], result[last]];
  }
  return result;
}

// {listener, seed, started, finished, at, trials: [{number, order, ratings, heard, seconds}]}; `heard` in seconds too
let session = null;
let player = null;
let rows = []; // [{button, slider, output}] of the stimuli on stage
const trial = () => session.trials[session.at];

function show(name) {
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== name;
  const heading = find(`#${name} h2`);
  if (name !== "welcome") heading.focus();
  scrollTo(0, 0);
}

function welcome() {
  session = memory.load();
  find("#begin").hidden = Boolean(session);
  find("#resume").hidden = !session;
  if (session) {
    const where = session.finished ? "have finished" : `are at trial ${session.at + 1} of ${test.trials.length}`;
    find("#resume p").textContent = `${session.listener}, you ${where}.`;
    find("[data-do=continue]").textContent = session.finished ? "Save the answers" : "Continue";
  }
  show("welcome");
}

function begin(listener) {
  const seed = crypto.getRandomValues(new Uint32Array(1))[0];
  const numbers = shuffled(test.trials.keys(), seed);
  session = {
    listener,
    seed,
    started: new Date().toISOString(),
    finished: null,
    at: 0,
    trials: numbers.map((number) => ({
      number,
      order: shuffled(Object.keys(test.trials[number].sounds), seed + 1 + number),
      ratings: {},
      heard: {},
      seconds: 0,
    })),
  };
  memory.save(session);
  enter();
}

function enter() {
  if (session.finished) return finish();
  const { number, order, ratings } = trial();
  const { sounds, seconds } = test.trials[number];
  find("#which").textContent = `Trial ${session.at + 1} of ${test.trials.length}`;
  find("progress").value = session.at;
  // The controls of the last trial are bound to its player.
  for (const name of [".deck .transport", ".deck .picture"]) {
    const old = find(name);
    old.replaceWith(old.cloneNode(true));
  }
  find("[data-do=seek]").max = seconds;
  find("[data-show=duration]").textContent = clock(seconds);
  player = new Player([sounds.reference, ...order.map((system) => sounds[system])], seconds);
  player.addEventListener("change", drawButtons);
  bindTransport(deck, player);
  bindTimeline(find(".picture"), player);
  find("#stimuli").replaceChildren();
  rows = order.map((system, index) => {
    const row = find("#stimulus").content.cloneNode(true).firstElementChild;
    const letter = String.fromCharCode(65 + index);
    const [button, slider, output] = ["button", "input", "output"].map((name) => row.querySelector(name));
    button.innerHTML = `${index < 9 ? `<kbd>${index + 1}</kbd> ` : ""}${letter}`;
    button.setAttribute("aria-label", `Listen to ${letter}`);
    button.dataset.index = index + 1;
    slider.setAttribute("aria-label", `Rating of ${letter}`);
    const rate = () => setRating(index, Number(slider.value));
    // A click that leaves the slider where it stands is a rating too.
    slider.addEventListener("input", rate);
    slider.addEventListener("pointerup", rate);
    find("#stimuli").append(row);
    return { button, slider, output };
  });
  order.forEach((system, index) => system in ratings && drawRating(index, ratings[system]));
  for (const button of stage.querySelectorAll(".listen")) button.onclick = () => listen(Number(button.dataset.index));
  player.select(0);
  drawLeft();
  show("trial");
  drawWave();
}

function listen(index) {
  player.select(index);
  if (!player.playing && player.selected === index) player.play();
}

function setRating(index, value) {
  trial().ratings[trial().order[index]] = value;
  memory.save(session);
  drawRating(index, value);
  drawLeft();
}

function drawRating(index, value) {
  const { slider, output } = rows[index];
  slider.value = value;
  slider.classList.add("rated");
  slider.setAttribute("aria-valuetext", `${value}, ${WORDS[Math.min(4, Math.floor(value / 20))]}`);
  output.textContent = value;
}

function drawButtons() {
  for (const button of stage.querySelectorAll(".listen")) {
    const on = Number(button.dataset.index) === player.selected;
    button.setAttribute("aria-pressed", on);
    button.closest(".stimulus").classList.toggle("heard", on);
  }
}

function drawLeft() {
  const { order, ratings, heard } = trial();
  const unheard = order.filter((system) => !(heard[system] >= HEARD)).length;
  const unrated = order.filter((system) => !(system in ratings)).length;
  const checks = [
    [unheard === 0, unheard ? `Listen to all versions: ${unheard} left` : "All versions heard"],
    [unrated === 0, unrated ? `Rate all versions: ${unrated} left` : "All versions rated"],
    [Object.values(ratings).includes(100), "The hidden reference: at least one version has 100"],
  ];
  checks.forEach(([done, text], index) => {
    const item = find("#left").children[index];
    item.className = done ? "done" : "";
    // Said aloud only when it changes.
    if (item.textContent !== text) item.textContent = text;
  });
  const next = find("[data-do=next]");
  next.disabled = !checks.every(([done]) => done);
  next.textContent = session.at + 1 < session.trials.length ? "Next trial" : "Finish";
}

async function drawWave() {
  const canvas = find(".picture canvas");
  const mine = player;
  const samples = await mine.samples(0).catch(() => null);
  if (!samples || mine !== player) return;
  const scale = devicePixelRatio || 1;
  const width = (canvas.width = Math.round(canvas.clientWidth * scale));
  const height = (canvas.height = Math.round(canvas.clientHeight * scale));
  const context = canvas.getContext("2d");
  const peak = samples.reduce((most, sample) => Math.max(most, Math.abs(sample)), 1e-4);
  context.fillStyle = getComputedStyle(canvas).color;
  for (let x = 0; x < width; x++) {
    const part = samples.subarray((x * samples.length) / width, Math.max(((x + 1) * samples.length) / width, 1));
    const [low, high] = [Math.min(0, ...part), Math.max(0, ...part)];
    const top = (0.5 - (0.46 * high) / peak) * height;
    context.fillRect(x, top, 1, Math.max(((0.46 * (high - low)) / peak) * height, scale));
  }
}

// Counts the time that is spent, and what is heard.
const TICK = 0.1;
setInterval(() => {
  if (stage.hidden || document.hidden) return;
  trial().seconds += TICK;
  if (!player.sounding || player.selected === 0) return;
  const system = trial().order[player.selected - 1];
  const { heard } = trial();
  heard[system] = (heard[system] ?? 0) + TICK;
  if (heard[system] >= HEARD && heard[system] < HEARD + TICK) {
    memory.save(session);
    drawLeft();
  }
}, TICK * 1000);

function next() {
  player.release();
  session.at++;
  if (session.at === session.trials.length) session.finished = new Date().toISOString();
  memory.save(session);
  enter();
}

function results() {
  return {
    format: test.format,
    test: test.test,
    title: test.title,
    listener: session.listener,
    seed: session.seed,
    user_agent: navigator.userAgent,
    started: session.started,
    finished: session.finished,
    trials: session.trials.map(({ number, order, ratings, seconds }) => {
      const { clip, task, stem } = test.trials[number];
      return { clip, task, stem, order, ratings, seconds: Math.round(seconds * 10) / 10 };
    }),
  };
}

function finish() {
  const text = JSON.stringify(results(), null, 2);
  const link = find("#save");
  const name = session.listener.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "") || "listener";
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = `mushra-${name}-${session.seed}.json`;
  find("#done pre").textContent = text;
  show("done");
  link.click();
}

find("#begin").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = find("#listener").value.trim();
  if (name) begin(name);
});
find("[data-do=continue]").addEventListener("click", enter);
find("[data-do=next]").addEventListener("click", next);
for (const button of document.querySelectorAll("[data-do=restart]")) {
  button.addEventListener("click", () => {
    if (!confirm("Forget the answers that were given in this browser?")) return;
    memory.clear();
    welcome();
  });
}
const adjust = (by) => (_, event) => {
  const index = player.selected - 1;
  if (index < 0) return;
  const value = Number(rows[index].slider.value) + by * (event.shiftKey ? 10 : 1);
  setRating(index, Math.min(Math.max(value, 0), 100));
};
bindKeys(() => (stage.hidden ? null : player), {
  0: () => listen(0),
  digit: (_, event) => listen(Number(event.key)),
  ArrowUp: adjust(1),
  ArrowDown: adjust(-1),
});
addEventListener("pagehide", () => session && memory.save(session));
addEventListener("resize", () => stage.hidden || drawWave());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => stage.hidden || drawWave());
welcome();
