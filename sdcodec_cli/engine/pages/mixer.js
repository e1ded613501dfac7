// A mixing desk: stems that play in step, each through a fader; needs controls.js.

const data = JSON.parse(document.getElementById("mixer").textContent);
const AHEAD = 3; // seconds that are scheduled: of a page in the background timers come once a second
const KEPT = 3; // decoded pieces
const OFF = -60; // dB: the end of a fader, where nothing comes through
const SILENT = -100; // dB: the lowest gain that sdc takes
const MOST = 2 ** 32 - 100; // bytes of a WAV file

const find = (selector) => document.querySelector(selector);
const factor = (db) => (db <= OFF ? 0 : 10 ** (db / 20));
const told = (message) => Object.assign(new Error(message), { told: true });

// Files beside the page call this with the sound of a piece: a text for each stem.
const awaited = new Map(); // from the number of a piece to [function]
function arrive(index, texts) {
  for (const done of awaited.get(index) ?? []) done(texts);
  awaited.delete(index);
}

// The sound: a list of AudioBuffers for each piece, one for each stem, and null where that is silent.
class Sound {
  #decoder = new OfflineAudioContext(1, 1, data.rate); // at this rate it does not resample
  #late = null;
  #kept = new Map(); // promises of pieces, the latest used last

  piece(index) {
    const found = this.#kept.get(index) ?? this.#decoded(index);
    this.#kept.delete(index);
    this.#kept.set(index, found);
    found.catch(() => this.#kept.delete(index));
    for (const other of this.#kept.keys()) if (this.#kept.size > KEPT) this.#kept.delete(other);
    return found;
  }

  async #decoded(index) {
    const texts = await this.#texts(index);
    this.#late ??= this.#measure();
    const begin = (await this.#late) + data.lead;
    const length = Math.min(data.piece, data.samples - index * data.piece);
    const decode = async (text) => {
      if (!text) return null;
      const whole = await this.#decode(text);
      const buffer = new AudioBuffer({ length, numberOfChannels: whole.numberOfChannels, sampleRate: data.rate });
      for (let channel = 0; channel < whole.numberOfChannels; channel++)
        buffer.copyToChannel(whole.getChannelData(channel).subarray(begin, begin + length), channel);
      return buffer;
    };
    return Promise.all(texts.map(decode));
  }

  #decode(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return this.#decoder.decodeAudioData(bytes.buffer);
  }

  // Samples by which this browser's decoder is late, in all sound alike. Some take the encoder's delay away, some leave
  // it; a click at a known place tells.
  async #measure() {
    const click = (await this.#decode(data.probe)).getChannelData(0).map(Math.abs);
    return click.indexOf(click.reduce((most, sample) => Math.max(most, sample))) - data.probeAt;
  }

  #texts(index) {
    const inside = document.getElementById(`piece-${index}`);
    if (inside) return JSON.parse(inside.textContent);
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      const place = `${data.folder}/${String(index + 1).padStart(4, "0")}.js`;
      awaited.set(index, [...(awaited.get(index) ?? []), resolve]);
      script.onload = () => script.remove();
      script.onerror = () => {
        script.remove();
        awaited.delete(index);
        reject(told(`${place} is missing: the folder ${data.folder} belongs beside this page.`));
      };
      script.src = place.split("/").map(encodeURIComponent).join("/");
      document.head.append(script);
    });
  }
}

// From stems through their gains to what is heard, in any context; `fade` is for what plays only now and then.
function wire(context, levels, mix) {
  const fade = context.createGain();
  const sum = context.createGain();
  sum.gain.value = mix;
  fade.connect(sum).connect(context.destination);
  const gains = levels.map((level) => {
    const gain = context.createGain();
    gain.gain.value = level;
    gain.connect(fade);
    return gain;
  });
  return { fade, sum, gains };
}

// Plays a part of a piece, from and to samples within it; returns the sources.
function emit(context, gains, buffers, when, from, to) {
  return buffers.flatMap((buffer, index) => {
    if (!buffer) return [];
    const source = context.createBufferSource();
    source.buffer = buffer;
    source.connect(gains[index]);
    source.start(when, from / data.rate, (to - from) / data.rate);
    return source;
  });
}

class Desk extends Timeline {
  #context = null;
  #run = null; // what plays since it was started or moved

  constructor(sound) {
    super(data.samples / data.rate);
    this.sound = sound;
    this.reset();
    setInterval(() => this.#run && this.#pump(this.#run), 100);
  }

  reset() {
    this.faders = data.stems.map(() => 0); // dB
    this.muted = data.stems.map(() => false);
    this.soloed = data.stems.map(() => false);
    this.mix = 0; // dB
    this.moved();
  }

  // Solo of any leaves only those that have it; mute silences in any case.
  hears(index) {
    return !this.muted[index] && (this.soloed[index] || !this.soloed.includes(true)) && this.faders[index] > OFF;
  }

  get levels() {
    return this.faders.map((db, index) => (this.hears(index) ? factor(db) : 0));
  }

  // Something was set: what plays follows.
  moved() {
    if (this.#run) {
      const { sum, gains } = this.#run;
      const now = this.#context.currentTime;
      this.levels.forEach((level, index) => gains[index].gain.setTargetAtTime(level, now, FADE));
      sum.gain.setTargetAtTime(factor(this.mix), now, FADE);
    }
    this.changed();
  }

  get sounding() {
    return Boolean(this.#run?.parts.length);
  }

  get heard() {
    const now = this.#context.currentTime - (this.#context.outputLatency || 0);
    const { parts } = this.#run;
    const part = parts.findLast(({ when }) => when <= now) ?? parts[0];
    return part.from + Math.min(Math.max(now - part.when, 0), part.seconds);
  }

  prepare() {
    // Browsers want a gesture first, so this is not made before something is to be played.
    this.#context ??= new AudioContext({ sampleRate: data.rate });
    return Promise.all([this.#context.resume(), this.sound.piece(Math.floor(this.#first(this.from) / data.piece))]);
  }

  // The sample at which playing begins: the start of what is looped, unless the position is inside of that.
  #first(at) {
    const [start, end] = this.span;
    return Math.round((at < start || at >= end - 0.01 ? start : at) * data.rate);
  }

  start(at) {
    this.stop();
    const wires = wire(this.#context, this.levels, factor(this.mix));
    this.#run = { ...wires, next: this.#first(at), until: 0, parts: [], sources: [], over: false, busy: false };
    this.from = this.#run.next / data.rate;
    this.#pump(this.#run);
  }

  stop() {
    if (!this.#run) return;
    const now = this.#context.currentTime;
    const { fade, sources } = this.#run;
    fade.gain.cancelScheduledValues(now);
    fade.gain.setTargetAtTime(0, now, FADE / 3);
    for (const source of sources) source.stop(now + 2 * FADE);
    this.#run = null;
  }

  // Schedules what is next. All is on the context's clock, so that neither stems nor pieces can drift apart.
  async #pump(run) {
    if (run.busy) return;
    run.busy = true;
    const context = this.#context;
    try {
      while (run === this.#run && !run.over && run.until < context.currentTime + AHEAD) {
        const [start, end] = this.span.map((seconds) => Math.round(seconds * data.rate));
        if (run.next >= end) {
          if (!this.loop) {
            run.over = true;
            break;
          }
          run.next = start;
          this.#join(run.fade.gain, run.until);
        }
        const index = Math.floor(run.next / data.piece);
        const buffers = await this.sound.piece(index);
        if (run !== this.#run) return;
        if (run.until <= context.currentTime) {
          run.until = context.currentTime + 0.02; // at the start, or if decoding took too long
          run.fade.gain.setValueAtTime(0, run.until);
          run.fade.gain.linearRampToValueAtTime(1, run.until + FADE);
        }
        const first = index * data.piece;
        const stop = Math.min(first + data.piece, end);
        const seconds = (stop - run.next) / data.rate;
        run.sources.push(...emit(context, run.gains, buffers, run.until, run.next - first, stop - first));
        run.parts.push({ when: run.until, from: run.next / data.rate, seconds });
        run.until += seconds;
        run.next = stop;
        if (run.parts.length === 1) this.changed();
        // What comes after it is decoded while it plays.
        const following = stop < end ? stop : start;
        this.sound.piece(Math.floor(following / data.piece)).catch(() => {});
      }
      const now = context.currentTime;
      while (run.parts.length > 1 && run.parts[1].when < now - 1) run.parts.shift();
      run.sources = run.sources.slice(-data.stems.length * (run.parts.length + 1));
      if (run.over && now >= run.until) {
        this.from = this.span[0];
        this.end();
      }
    } catch (error) {
      if (run === this.#run) this.fail(error);
    }
    run.busy = false;
  }

  // A loop would click where it joins.
  #join(gain, at) {
    gain.setValueAtTime(1, at - FADE);
    gain.linearRampToValueAtTime(0, at);
    gain.linearRampToValueAtTime(1, at + FADE);
  }
}

// The mix as it is set, from and to seconds, as a WAV file; `progress` is told the share that is done.
async function render(desk, from, to, progress) {
  const [first, end] = [from, to].map((seconds) => Math.round(seconds * data.rate));
  const { levels } = desk;
  const mix = factor(desk.mix);
  const size = (end - first) * data.channels * 2;
  if (size > MOST) throw told("This is longer than a WAV file can be: loop a part, which is downloaded alone.");
  const parts = [header(size)];
  let clipped = 0;
  for (let at = first; at < end; ) {
    progress((at - first) / (end - first));
    const index = Math.floor(at / data.piece);
    const begin = index * data.piece;
    const stop = Math.min(begin + data.piece, end);
    const context = new OfflineAudioContext(data.channels, stop - at, data.rate);
    emit(context, wire(context, levels, mix).gains, await desk.sound.piece(index), 0, at - begin, stop - begin);
    const rendered = await context.startRendering();
    const samples = new DataView(new ArrayBuffer((stop - at) * data.channels * 2));
    for (let channel = 0; channel < data.channels; channel++)
      rendered.getChannelData(channel).forEach((sample, place) => {
        const value = Math.round(sample * 32768);
        clipped += Math.abs(sample) > 1;
        samples.setInt16(2 * (place * data.channels + channel), Math.min(Math.max(value, -32768), 32767), true);
      });
    parts.push(samples);
    at = stop;
  }
  return { blob: new Blob(parts, { type: "audio/wav" }), clipped };
}

// Of a WAV file with 16 bits and `size` bytes of samples.
function header(size) {
  const view = new DataView(new ArrayBuffer(44));
  const text = (at, letters) => [...letters].forEach((letter, index) => view.setUint8(at + index, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + size, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, data.channels, true);
  view.setUint32(24, data.rate, true);
  view.setUint32(28, data.rate * data.channels * 2, true);
  view.setUint16(32, data.channels * 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, size, true);
  return view;
}

// What is downloaded, and decoded by the command line: what is looped, in whole milliseconds, or everything.
const part = (desk) => desk.region?.map((seconds) => Math.round(seconds * 1000) / 1000) ?? null;

function commandLine(desk) {
  const names = data.stems.map(({ name }) => name);
  const heard = names.filter((_, index) => desk.hears(index));
  if (!heard.length || desk.mix <= OFF) return "";
  const line = [data.command];
  const gain = (name, db) => line.push(`--gain ${name}=${Math.max(db, SILENT)}`);
  if (heard.length === 1 && names.length > 1) {
    line.push(`--stem ${heard[0]}`);
    const db = desk.faders[names.indexOf(heard[0])] + desk.mix;
    if (db) gain(heard[0], db);
  } else {
    const gains = names.map((name, index) => [name, desk.hears(index) ? desk.faders[index] : SILENT]);
    const set = gains.filter(([, db]) => db);
    // One gain at least, of 0 dB: stems are decoded together else, which is not quite their sum.
    for (const [name, db] of set.length || names.length === 1 ? set : gains.slice(0, 1)) gain(name, db);
    if (desk.mix) gain("mix", desk.mix);
  }
  const region = part(desk);
  if (region) line.push(`--start ${region[0]} --duration ${Number((region[1] - region[0]).toFixed(3))}`);
  return line.join(" ");
}

const sound = new Sound();
const desk = new Desk(sound);
const root = find(".desk");
const strips = [...document.querySelectorAll(".strip:not(.sum)")];
const faders = [...document.querySelectorAll("[data-fader=stem]")];
const mixFader = find("[data-fader=mix]");
const say = (text) => (find("#said").textContent = text);
const words = (db) => (db <= OFF ? "off" : `${db} dB`);
const shown = (db) => (db <= OFF ? "off" : `${db > 0 ? "+" : db < 0 ? "−" : ""}${Math.abs(db).toFixed(1)}`);
let chosen = 0; // the strip that keys are for

function drawFader(fader, db) {
  fader.value = db;
  fader.setAttribute("aria-valuetext", words(db));
  fader.style.setProperty("--level", (db - fader.min) / (fader.max - fader.min));
  fader.nextElementSibling.textContent = shown(db);
}

function draw() {
  strips.forEach((strip, index) => {
    drawFader(faders[index], desk.faders[index]);
    strip.querySelector(".mute").setAttribute("aria-pressed", desk.muted[index]);
    strip.querySelector(".solo").setAttribute("aria-pressed", desk.soloed[index]);
    strip.classList.toggle("cut-off", !desk.hears(index));
    strip.classList.toggle("chosen", index === chosen);
  });
  drawFader(mixFader, desk.mix);
  find("[data-do=download]").textContent = desk.region ? "Download the loop" : "Download the mix";
  if (data.command) {
    const line = commandLine(desk);
    find("#line code").textContent = line || "Nothing is heard.";
    find("[data-do=copy]").disabled = !line;
  }
}

function choose(index) {
  chosen = index;
  draw();
}

function cut(kind, index) {
  desk[kind][index] = !desk[kind][index];
  desk.moved();
  const now = { muted: ["muted", "not muted"], soloed: ["solo", "solo off"] }[kind][desk[kind][index] ? 0 : 1];
  say(`${data.stems[index].name}: ${now}`);
}

async function download() {
  const button = find("[data-do=download]");
  const status = find("[data-show=download]");
  const region = part(desk);
  button.disabled = true;
  try {
    const { blob, clipped } = await render(desk, ...(region ?? [0, desk.duration]), (share) => {
      status.textContent = `Mixing … ${Math.round(100 * share)} %`;
    });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${data.name}.${region ? "loop" : "mix"}.wav`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    const limited = clipped ? `, ${clipped} samples beyond full scale were limited to it: pull the mix down` : "";
    status.textContent = `Saved as ${link.download}${limited}`;
  } catch (error) {
    status.textContent = error.told ? error.message : "This browser cannot mix the sounds of this page.";
  }
  say(status.textContent);
  button.disabled = false;
}

async function copy() {
  const code = find("#line code");
  try {
    await navigator.clipboard.writeText(code.textContent);
    say("Copied");
  } catch {
    getSelection().selectAllChildren(code);
    say("Selected; copy it with the keyboard");
  }
  find("[data-do=copy]").textContent = find("#said").textContent.split(";")[0];
  setTimeout(() => (find("[data-do=copy]").textContent = "Copy"), 2000);
}

// Lamps: which stems are active where it plays.
let lighting = 0;
function light() {
  cancelAnimationFrame(lighting);
  const at = desk.position;
  strips.forEach((strip, index) => {
    const on = data.stems[index].active.some(([start, end]) => at >= start && at < end);
    strip.classList.toggle("lit", on && desk.hears(index));
  });
  if (desk.playing) lighting = requestAnimationFrame(light);
}

strips.forEach((strip, index) => {
  bindTimeline(strip.querySelector(".picture"), desk);
  strip.querySelector(".mute").addEventListener("click", () => cut("muted", index));
  strip.querySelector(".solo").addEventListener("click", () => cut("soloed", index));
  strip.addEventListener("focusin", () => choose(index));
  strip.addEventListener("pointerdown", () => choose(index));
  faders[index].addEventListener("input", () => {
    desk.faders[index] = Number(faders[index].value);
    desk.moved();
  });
  faders[index].addEventListener("dblclick", () => {
    desk.faders[index] = 0;
    desk.moved();
  });
});
mixFader.addEventListener("input", () => {
  desk.mix = Number(mixFader.value);
  desk.moved();
});
mixFader.addEventListener("dblclick", () => {
  desk.mix = 0;
  desk.moved();
});
// Buttons that the mouse pressed do not keep the space bar from playing; the keyboard's clicks have no detail.
root.addEventListener("click", (event) => event.detail && event.target.closest("button")?.blur());
const reset = () => {
  desk.reset();
  say("All faders at 0 dB, nothing muted or solo");
};
find("[data-do=reset]").addEventListener("click", reset);
find("[data-do=download]").addEventListener("click", download);
find("[data-do=copy]").addEventListener("click", copy);
find("#line").hidden = !data.command;

bindTransport(root, desk);
desk.addEventListener("change", () => {
  draw();
  light();
});
bindKeys(() => desk, {
  0: () => mixFader.focus(),
  digit: (_, event) => faders[Number(event.key) - 1]?.focus(),
  m: () => cut("muted", chosen),
  s: () => cut("soloed", chosen),
  r: reset,
});
desk.changed();
