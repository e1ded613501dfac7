"use strict";
// Sounds that play at one position, of which exactly one is heard: switching changes gains and nothing else.

const FADE = 0.005; // seconds, of switching and at the ends of what is played
const SHORTEST_LOOP = 0.2; // seconds

const audioContext = (() => {
  let context;
  // Browsers want a gesture first, so this is not made before something is to be played.
  return () => (context ??= new (window.AudioContext || window.webkitAudioContext)());
})();

function bytesOf(id) {
  const text = atob(document.getElementById(id).textContent);
  const bytes = new Uint8Array(text.length);
  for (let index = 0; index < text.length; index++) bytes[index] = text.charCodeAt(index);
  return bytes.buffer;
}

class Player extends EventTarget {
  // Events: "change" when anything but the position changed.
  #buffers = null; // [AudioBuffer], once they are decoded
  #loading = null;
  #voices = []; // [{source, gain}] while playing
  #output = null;
  #begun = 0; // time of the context at which #from was played
  #from = 0; // seconds
  #turn = 0; // changes when what was asked for is no longer wanted

  constructor(ids, duration) {
    super();
    this.ids = ids;
    this.duration = duration;
    this.selected = 0;
    this.playing = false; // asked to play; `sounding` once it is decoded
    this.loop = true;
    this.region = null; // [start, end] in seconds
    this.levels = ids.map(() => 1);
    this.error = "";
  }

  get sounding() {
    return this.#voices.length > 0;
  }

  get span() {
    return this.region ?? [0, this.duration];
  }

  get position() {
    if (!this.sounding) return this.#from;
    const context = audioContext();
    const gone = context.currentTime - (context.outputLatency || 0) - this.#begun;
    const at = this.#from + Math.max(0, gone);
    const [start, end] = this.span;
    if (at < end) return at;
    return this.loop ? start + ((at - end) % (end - start)) : end;
  }

  async play() {
    const turn = ++this.#turn;
    this.playing = true;
    this.#changed();
    try {
      await Promise.all([audioContext().resume(), this.#load()]);
    } catch {
      this.error = "This browser cannot decode the sounds of this page.";
      this.playing = false;
    }
    if (turn === this.#turn && this.playing) this.#start(this.#from);
    this.#changed();
  }

  pause() {
    this.#turn++;
    this.#from = this.position;
    this.playing = false;
    this.#stop();
    this.#changed();
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  seek(seconds) {
    const [start, end] = this.span;
    const at = Math.min(Math.max(seconds, 0), this.duration);
    if (at < start || at > end) this.region = null;
    this.#restart(at);
  }

  select(index) {
    if (index < 0 || index >= this.ids.length) return;
    this.selected = index;
    this.#mix();
    this.#changed();
  }

  setLevels(levels) {
    this.levels = levels;
    this.#mix();
    this.#changed();
  }

  setLoop(loop) {
    const at = this.position;
    this.loop = loop;
    this.#restart(at);
  }

  setRegion(region) {
    const at = this.position;
    if (region) {
      const start = Math.min(Math.max(Math.min(...region), 0), this.duration - SHORTEST_LOOP);
      region = [Math.max(start, 0), Math.min(Math.max(...region, start + SHORTEST_LOOP), this.duration)];
    }
    this.region = region;
    this.#restart(region && (at < region[0] || at >= region[1]) ? region[0] : at);
  }

  // The samples of one sound, for drawing.
  async samples(index) {
    await this.#load();
    return this.#buffers[index].getChannelData(0);
  }

  // Forget the decoded sounds, which take much memory.
  release() {
    if (this.playing) this.pause();
    this.#buffers = this.#loading = null;
  }

  #load() {
    this.#loading ??= (async () => {
      const distinct = [...new Set(this.ids)];
      const decoded = await Promise.all(distinct.map((id) => audioContext().decodeAudioData(bytesOf(id))));
      this.#buffers = this.ids.map((id) => decoded[distinct.indexOf(id)]);
    })();
    return this.#loading;
  }

  #restart(at) {
    this.#from = at;
    if (this.sounding) this.#start(at);
    this.#changed();
  }

  #start(at) {
    this.#stop();
    const context = audioContext();
    const [start, end] = this.span;
    const from = at < start || at >= end - 0.01 ? start : at;
    const when = context.currentTime + 0.02;
    this.#output = context.createGain();
    this.#output.connect(context.destination);
    this.#shape(this.#output.gain, when, end - from, end - start);
    this.#voices = this.#buffers.map((buffer, index) => {
      const source = context.createBufferSource();
      const gain = context.createGain();
      source.buffer = buffer;
      source.loop = this.loop;
      source.loopStart = start;
      source.loopEnd = end;
      gain.gain.value = index === this.selected ? this.levels[index] : 0;
      source.connect(gain).connect(this.#output);
      if (this.loop) source.start(when, from);
      else source.start(when, from, end - from);
      return { source, gain };
    });
    this.#voices[0].source.onended = () => {
      this.#from = start;
      this.playing = false;
      this.#stop();
      this.#changed();
    };
    this.#begun = when;
    this.#from = from;
  }

  // Fades at the ends and where a loop joins, which would click.
  #shape(gain, when, first, length) {
    gain.setValueAtTime(0, when);
    gain.linearRampToValueAtTime(1, when + FADE);
    const joins = this.loop ? Math.ceil(3600 / length) : 1;
    for (let join = 0; join < Math.min(joins, 1000); join++) {
      const at = when + first + join * length;
      gain.setValueAtTime(1, Math.max(at - FADE, when + FADE));
      gain.linearRampToValueAtTime(0, Math.max(at, when + FADE));
      if (this.loop) gain.linearRampToValueAtTime(1, at + FADE);
    }
  }

  #stop() {
    if (!this.sounding) return;
    const now = audioContext().currentTime;
    this.#output.gain.cancelScheduledValues(now);
    this.#output.gain.setTargetAtTime(0, now, FADE / 3);
    for (const { source } of this.#voices) {
      source.onended = null;
      source.stop(now + 2 * FADE);
    }
    this.#voices = [];
  }

  #mix() {
    this.#voices.forEach(({ gain }, index) => {
      // The gains of what goes and what comes always add up to one.
      gain.gain.setTargetAtTime(index === this.selected ? this.levels[index] : 0, audioContext().currentTime, FADE / 3);
    });
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

const clock = (seconds) => `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;

// Binds the controls of a transport (see transport.py) inside of `root` to a player.
function bindTransport(root, player) {
  const play = root.querySelector("[data-do=play]");
  const loop = root.querySelector("[data-do=loop]");
  const seek = root.querySelector("[data-do=seek]");
  const now = root.querySelector("[data-show=position]");
  const status = root.querySelector("[data-show=status]");
  play.addEventListener("click", () => player.toggle());
  loop.addEventListener("click", () => player.setLoop(!player.loop));
  seek.addEventListener("input", () => player.seek(Number(seek.value)));

  const draw = () => {
    const at = player.position;
    seek.value = at;
    seek.setAttribute("aria-valuetext", `${at.toFixed(1)} seconds`);
    now.textContent = clock(at);
    root.style.setProperty("--at", at / player.duration);
  };
  let drawing = false;
  const frame = () => {
    draw();
    drawing = player.playing;
    if (drawing) requestAnimationFrame(frame);
  };
  player.addEventListener("change", () => {
    root.classList.toggle("playing", player.playing);
    root.classList.toggle("looped", Boolean(player.region));
    play.setAttribute("aria-label", player.playing ? "Pause" : "Play");
    loop.setAttribute("aria-pressed", player.loop);
    const [start, end] = player.span;
    root.style.setProperty("--from", start / player.duration);
    root.style.setProperty("--to", end / player.duration);
    status.textContent = player.error || (player.playing && !player.sounding ? "Decoding …" : "");
    draw();
    if (player.playing && !drawing) requestAnimationFrame(frame);
  });
}

// A click on a picture of the sound goes there, dragging over it marks what is looped.
function bindTimeline(element, player) {
  const at = (event) => {
    const box = element.getBoundingClientRect();
    return Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1) * player.duration;
  };
  let pressed = null;
  element.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    pressed = { x: event.clientX, at: at(event), dragged: false };
    element.setPointerCapture(event.pointerId);
  });
  element.addEventListener("pointermove", (event) => {
    if (!pressed) return;
    pressed.dragged ||= Math.abs(event.clientX - pressed.x) > 6;
    if (pressed.dragged) {
      const ends = [pressed.at, at(event)];
      element.parentElement.style.setProperty("--mark-from", Math.min(...ends) / player.duration);
      element.parentElement.style.setProperty("--mark-to", Math.max(...ends) / player.duration);
      element.classList.add("marking");
    }
  });
  const done = (event) => {
    element.classList.remove("marking");
    if (pressed && event.type === "pointerup") {
      if (pressed.dragged) player.setRegion([pressed.at, at(event)]);
      else player.seek(pressed.at);
    }
    pressed = null;
  };
  element.addEventListener("pointerup", done);
  element.addEventListener("pointercancel", done);
}

// Keys of whatever `current()` plays. Sliders that are no part of a transport keep their arrow keys, and the buttons
// that are none keep the space bar.
function bindKeys(current, more) {
  const keys = {
    " ": (player) => player.toggle(),
    ArrowLeft: (player, event) => player.seek(player.position - (event.shiftKey ? 0.1 : 1)),
    ArrowRight: (player, event) => player.seek(player.position + (event.shiftKey ? 0.1 : 1)),
    l: (player) => player.setLoop(!player.loop),
    "[": (player) => player.setRegion([player.position, Math.max(player.span[1], player.position)]),
    "]": (player) => player.setRegion([Math.min(player.span[0], player.position), player.position]),
    Escape: (player) => player.setRegion(null),
    ...more,
  };
  const mine = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return null;
    const { target, key } = event;
    if (target.closest("input:not([type=range]), textarea, select")) return null;
    const transport = target.closest("[data-player]");
    if (key === " " && !transport && target.closest("a, button, summary, input")) return null;
    if (/^Arrow/.test(key) && !transport && target.closest("input")) return null;
    return keys[/^[A-Z]$/.test(key) ? key.toLowerCase() : key] ?? (/^[0-9]$/.test(key) ? keys.digit : null);
  };
  document.addEventListener("keydown", (event) => {
    const action = mine(event);
    const player = action && current();
    if (!player) return;
    event.preventDefault();
    if (!event.repeat || /^Arrow/.test(event.key)) action(player, event);
  });
  // Some browsers press a focused button when the space bar comes up again.
  document.addEventListener("keyup", (event) => {
    if (event.key === " " && mine(event)) event.preventDefault();
  });
}
