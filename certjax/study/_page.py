r"""The page that participants see: one file that asks nobody else for anything but its images.

Each pair: the first image, grey, the second image, then the question. Buttons and keys are dead until the second
image has been shown to its end. The order of batches, and of the pairs in one, is drawn from the worker's name.
Answers are posted to `answers` beside the page, or to Mechanical Turk where its frame says so, and can always be
saved as a file.
"""

import json

_STUDY = '@STUDY@'


def page(settings) -> str:
  r"""The HTML of a study.

  Args:
    settings: dict with title, instructions, price, seconds, gap, side, pixelated, max_batches, batches (lists of
      names; the images of a name are pairs/NAME-1.png and pairs/NAME-2.png).

  Example:
    >>> '"title": "\\u003cb>"' in page({'title': '<b>'})
    True
  """
  # A `<` could end the script: `</script>` in a title.
  study = json.dumps(settings, allow_nan=False).replace('<', '\\u003c')
  return _HTML.replace(_STUDY, study)


_HTML = r"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src 'self' file: data:; style-src
  'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; form-action https://www.mturk.com
  https://workersandbox.mturk.com">
<title>Same or different?</title>
<style>
  :root { color-scheme: light; }
  body { margin: 0; background: #808080; color: #111; font: 18px/1.5 system-ui, sans-serif; }
  main { max-width: 46rem; margin: 0 auto; padding: 1.5rem 1rem; text-align: center; }
  h1 { font-size: 1.5rem; margin: 0 0 1rem; }
  section { background: #f4f4f4; border-radius: 8px; padding: 1.5rem; }
  #trial { background: none; padding: 0; }
  #instructions { white-space: pre-line; text-align: left; }
  #stage { margin: 0 auto 1rem; max-width: 100%; }
  #stage img { width: 100%; height: 100%; object-fit: contain; }
  #question { font-weight: 600; min-height: 1.5em; }
  button, a.button, input { font: inherit; border-radius: 6px; border: 2px solid #222; padding: .6rem 1.4rem; }
  button, a.button, input { margin: .3rem; }
  button, a.button { background: #fff; color: #111; cursor: pointer; text-decoration: none; }
  a.button { display: inline-block; }
  button:disabled { opacity: .4; cursor: default; }
  button:focus-visible, a:focus-visible, input:focus-visible { outline: 4px solid #0072b2; outline-offset: 2px; }
  kbd { border: 1px solid #555; border-radius: 4px; padding: 0 .35em; background: #fff; color: #111; }
  progress { width: 100%; height: .8rem; }
  #error { color: #8a1f00; font-weight: 600; }
  [hidden] { display: none !important; }
</style>
</head>
<body>
<main>
  <section id="intro">
    <h1 id="title"></h1>
    <p id="instructions"></p>
    <p id="facts"></p>
    <p>Press <kbd>s</kbd> or the left button for <b>same</b>, <kbd>d</kbd> or the right button for
      <b>different</b>.</p>
    <form id="enter">
      <label id="who">Your worker name <input id="worker" autocomplete="off" maxlength="64"></label>
      <button id="start" type="submit">Start</button>
    </form>
  </section>
  <section id="trial" hidden>
    <progress id="progress" value="0"></progress>
    <p id="place"></p>
    <div id="stage"></div>
    <p id="question" role="status"></p>
    <button id="same" type="button" disabled>Same (s)</button>
    <button id="different" type="button" disabled>Different (d)</button>
  </section>
  <section id="end" hidden>
    <h1 id="thanks"></h1>
    <p id="sent" role="status"></p>
    <p><a id="save" class="button">Save answers</a> <button id="next" type="button">Next batch</button></p>
  </section>
  <p id="error" role="alert"></p>
  <noscript><section>This page needs JavaScript.</section></noscript>
</main>
<script type="application/json" id="study">@STUDY@</script>
<script>
'use strict';
const at = (id) => document.getElementById(id);
const study = JSON.parse(at('study').textContent);
const query = new URLSearchParams(location.search);
const wait = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
const turk = ['https://www.mturk.com', 'https://workersandbox.mturk.com']
  .find((host) => host === query.get('turkSubmitTo')) || null;
const preview = query.get('assignmentId') === 'ASSIGNMENT_ID_NOT_AVAILABLE';
let worker = query.get('workerId') || query.get('worker') || '';
let finished = [];
let awaited = null;  // What takes the answer; null while none is allowed.

// Numbers in [0, 1) that depend on a text alone: its FNV-1a hash starts a xorshift generator.
function drawer(text) {
  let state = 0x811c9dc5;
  for (const character of text) state = Math.imul(state ^ character.codePointAt(0), 0x01000193) >>> 0;
  state = state || 1;
  return () => {
    state ^= state << 13; state >>>= 0;
    state ^= state >>> 17;
    state ^= state << 5; state >>>= 0;
    return state / 2 ** 32;
  };
}

function shuffled(list, text) {
  const draw = drawer(text), found = list.slice();
  for (let i = 0; i < 8; i++) draw();
  for (let i = found.length - 1; i > 0; i--) {
    const j = Math.floor(draw() * (i + 1));
    [found[i], found[j]] = [found[j], found[i]];
  }
  return found;
}

function show(id) {
  for (const name of ['intro', 'trial', 'end']) at(name).hidden = name !== id;
}

function fail(text) {
  at('error').textContent = text;
}

// Batches that this worker has done: by the server's word, else by this browser's.
async function done() {
  let known = [];
  try { known = JSON.parse(localStorage.getItem('study-' + worker)) || []; } catch (error) { known = []; }
  if (location.protocol.startsWith('http') && !turk) {
    try {
      const reply = await fetch('progress?worker=' + encodeURIComponent(worker));
      if (reply.ok) known = (await reply.json()).batches;
    } catch (error) { /* A plain file server has no such page. */ }
  }
  return known;
}

function remember(batch) {
  finished.push(batch);
  try {
    localStorage.setItem('study-' + worker, JSON.stringify(finished));
  } catch (error) { /* A private window keeps nothing. */ }
}

// The number of the batch to do, or null.
function choose() {
  if (finished.length >= study.max_batches) return null;
  const all = shuffled(study.batches.map((_, i) => i + 1), worker);
  const asked = Number(query.get('batch'));
  const wanted = query.has('batch') ? all.filter((number) => number === asked) : all;
  const left = wanted.filter((number) => !finished.includes(number));
  return left.length ? left[0] : null;
}

async function load(name) {
  const image = new Image();
  image.alt = '';
  image.src = 'pairs/' + name + '.png';
  await image.decode();
  return image;
}

function answer(button) {
  if (awaited === null) return;
  const take = awaited;
  awaited = null;
  at('same').disabled = at('different').disabled = true;
  take(button);
}

// Shows one image after the other; says whether the tab was in front all the time.
async function present(images) {
  let seen = !document.hidden;
  const look = () => { seen = seen && !document.hidden; };
  document.addEventListener('visibilitychange', look);
  at('stage').replaceChildren(images[0]);
  await wait(study.seconds);
  at('stage').replaceChildren();
  await wait(study.gap);
  at('stage').replaceChildren(images[1]);
  await wait(study.seconds);
  at('stage').replaceChildren();
  document.removeEventListener('visibilitychange', look);
  return seen;
}

async function judge(name) {
  const images = await Promise.all([load(name + '-1'), load(name + '-2')]);
  at('question').textContent = '';
  while (!await present(images)) await wait(study.gap + 0.1);
  at('question').textContent = 'Were the two images the same, or different?';
  const since = performance.now();
  at('same').disabled = at('different').disabled = false;
  const given = await new Promise((resolve) => { awaited = resolve; });
  return { pair: name, answer: given, milliseconds: Math.round(performance.now() - since) };
}

async function run(batch) {
  const names = shuffled(study.batches[batch - 1], worker + '/' + batch), answers = [];
  show('trial');
  at('progress').max = names.length;
  for (const name of names) {
    at('progress').value = answers.length;
    at('place').textContent = `Pair ${answers.length + 1} of ${names.length}`;
    answers.push(await judge(name));
  }
  at('progress').value = names.length;
  await finish({ worker: worker, batch: batch, answers: answers });
}

async function finish(result) {
  const text = JSON.stringify(result);
  at('save').href = 'data:application/json,' + encodeURIComponent(text);
  at('save').download = `${result.worker}.batch-${String(result.batch).padStart(3, '0')}.json`;
  remember(result.batch);
  at('thanks').textContent = 'Thank you: this batch is done.';
  at('next').hidden = choose() === null;
  show('end');
  if (turk) return submit(text);
  let said = 'Your answers were not sent: please save them and hand in the file.';
  if (location.protocol.startsWith('http')) {
    try {
      const headers = { 'Content-Type': 'application/json' };
      const reply = await fetch('answers', { method: 'POST', headers: headers, body: text });
      said = reply.ok ? 'Your answers were received.'
        : `Not received (${(await reply.text()).trim().slice(0, 200)}). Please save them.`;
    } catch (error) { /* No server that takes answers. */ }
  }
  at('sent').textContent = said;
}

// Mechanical Turk takes a form, and closes the frame.
function submit(text) {
  const form = document.createElement('form');
  form.method = 'post';
  form.action = turk + '/mturk/externalSubmit';
  for (const [name, value] of [['assignmentId', query.get('assignmentId')], ['answers', text]]) {
    const field = document.createElement('input');
    field.type = 'hidden'; field.name = name; field.value = value;
    form.append(field);
  }
  document.body.append(form);
  form.submit();
}

async function begin() {
  fail('');
  finished = await done();
  const batch = choose();
  if (batch === null) {
    at('thanks').textContent = 'Thank you: there is nothing left for you to judge.';
    at('save').hidden = at('next').hidden = true;
    return show('end');
  }
  try { await run(batch); } catch (error) {
    awaited = null;
    show('none');
    fail('An image could not be loaded. Please reload the page; this batch starts again.');
  }
}

document.title = at('title').textContent = study.title;
at('instructions').textContent = study.instructions;
const size = study.batches[0].length;
at('facts').textContent = `Each image is shown for ${study.seconds} s. A batch has ${size} pairs`
  + (study.price > 0 ? ` and pays $${(study.price * size).toFixed(2)}` : '')
  + `; at most ${study.max_batches} batches.`;
at('stage').style.width = at('stage').style.height = study.side + 'px';
if (study.pixelated) at('stage').style.imageRendering = 'pixelated';
at('worker').value = worker;
at('who').hidden = worker !== '';
at('start').disabled = preview;
if (preview) fail('This is a preview: accept the task to start.');
at('enter').addEventListener('submit', (event) => {
  event.preventDefault();
  worker = worker || at('worker').value.trim();
  if (!/^[A-Za-z0-9_-]{1,64}$/.test(worker)) {
    worker = '';
    at('who').hidden = false;
    return fail('A worker name is 1 to 64 letters, digits, - or _.');
  }
  begin();
});
for (const name of ['same', 'different']) at(name).addEventListener('click', () => answer(name));
at('next').addEventListener('click', begin);
addEventListener('keydown', (event) => {
  if (event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
  const pressed = event.key.toLowerCase();
  if (pressed === 's') answer('same');
  if (pressed === 'd') answer('different');
});
addEventListener('beforeunload', (event) => { if (!at('trial').hidden) event.preventDefault(); });
</script>
</body>
</html>
"""
