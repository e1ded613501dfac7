// The players of a report; needs player.js.

const examples = [...document.querySelectorAll(".example")];
const players = new Map();
let matched = false; // whether all are played as loud as the reference

function playerOf(root) {
  if (players.has(root)) return players.get(root);
  const tiles = [...root.querySelectorAll(".tile")];
  const player = new Player(tiles.map((tile) => tile.dataset.sound), Number(root.dataset.duration));
  players.set(root, player);
  bindTransport(root, player);
  player.addEventListener("change", () => {
    tiles.forEach((tile, index) => {
      tile.classList.toggle("heard", index === player.selected);
      tile.querySelector("button").setAttribute("aria-pressed", index === player.selected);
    });
    if (!player.playing) return;
    // One at a time, and only its sounds are kept decoded.
    for (const other of players.values()) if (other !== player) other.release();
  });
  tiles.forEach((tile, index) => {
    tile.querySelector("button").addEventListener("click", () => player.select(index));
    bindTimeline(tile.querySelector(".picture"), player);
  });
  root.querySelector("[data-do=match]").addEventListener("click", () => match(!matched));
  level(root, player);
  return player;
}

function level(root, player) {
  const tiles = [...root.querySelectorAll(".tile")];
  player.setLevels(tiles.map((tile) => (matched ? Number(tile.dataset.level) : 1)));
}

function match(wanted) {
  matched = wanted;
  for (const button of document.querySelectorAll("[data-do=match]")) button.setAttribute("aria-pressed", matched);
  for (const [root, player] of players) level(root, player);
}

// The one that plays, or else the one in the middle of the window.
function current() {
  for (const player of players.values()) if (player.playing) return player;
  const middle = innerHeight / 2;
  const distance = (root) => {
    const box = root.getBoundingClientRect();
    return box.top > innerHeight || box.bottom < 0 ? Infinity : Math.max(box.top - middle, middle - box.bottom, 0);
  };
  const nearest = examples.reduce((best, root) => (best && distance(best) <= distance(root) ? best : root), null);
  return nearest && distance(nearest) < Infinity ? playerOf(nearest) : null;
}

bindKeys(current, {
  digit: (player, event) => player.select(Number(event.key) - 1),
  m: () => match(!matched),
});

// A page of a hundred examples opens as fast as one of a single one: players are made when they come into sight, or
// when a screen reader presses a button that is out of it.
const sight = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    playerOf(target);
    sight.unobserve(target);
  }
});
examples.forEach((root) => {
  sight.observe(root);
  root.addEventListener("click", () => playerOf(root), { capture: true, once: true });
});
