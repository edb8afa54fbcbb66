'use strict';
// The page shows each step and the time that has passed. When the launch has ended, it loads
// the same address again, which then shows the application or says why there is none.
(() => {
  const texts = JSON.parse(document.getElementById('texts').textContent);
  const progress = document.getElementById('progress');
  const message = document.getElementById('message');
  const elapsed = document.getElementById('elapsed');
  let queued = false; // an instance that waits for a place has not begun to start
  let began = performance.now();
  let entered = began; // the present step
  const since = (start) => {
    const seconds = Math.max(0, Math.round((performance.now() - start) / 1000));
    return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
  };
  const tick = () => {
    elapsed.textContent = texts[queued ? 'Waiting for %s' : 'Launched %s ago'].replace('%s', since(began));
    const took = progress.querySelector('[data-state=now] .took');
    if (took !== null && took.closest('[data-step=open]') === null) {
      took.textContent = since(entered);
    }
  };
  if (elapsed !== null) {
    began -= elapsed.dataset.seconds * 1000;
    queued = elapsed.dataset.queued !== undefined;
    entered -= progress.querySelector('[data-state=now] .took').dataset.seconds * 1000;
    tick();
    setInterval(tick, 1000);
  }
  // Another replica may be a moment behind and serve this page again. After a reload,
  // the page pauses before the next one.
  const [navigation] = performance.getEntriesByType('navigation');
  const pause = navigation && navigation.type === 'reload' ? 2000 : 0;
  const show = (name) => {
    let state = 'done';
    for (const item of progress.children) {
      const current = item.dataset.step === name;
      if (current) {
        if (item.dataset.state !== 'now') {
          entered = performance.now();
        }
        state = 'now';
        item.setAttribute('aria-current', 'step');
      } else {
        item.removeAttribute('aria-current');
      }
      item.dataset.state = state;
      item.querySelector('.state').textContent = texts[state];
      if (current) {
        state = 'next';
      }
    }
    if (elapsed !== null) {
      tick();
    }
  };
  const log = document.getElementById('log');
  // There is none while the instance waits for a place.
  const openLog = () => {
    const lines = log.querySelector('pre');
    const source = new EventSource(log.dataset.log);
    source.addEventListener('open', () => { lines.textContent = ''; }); // it begins again
    source.addEventListener('log', (event) => {
      const bottom = lines.scrollTop + lines.clientHeight >= lines.scrollHeight - 4;
      log.hidden = false;
      lines.textContent = `${lines.textContent}${event.data}\n`.slice(-20000);
      if (bottom) {
        lines.scrollTop = lines.scrollHeight;
      }
    });
    source.addEventListener('end', () => source.close());
  };
  if (log !== null && !queued) {
    openLog();
  }
  const events = new EventSource(progress.dataset.events);
  events.addEventListener('progress', (event) => {
    const step = JSON.parse(event.data);
    message.textContent = step.message;
    message.lang = step.lang ?? document.documentElement.lang;
    const waits = step.reason === 'Queued';
    if (queued && !waits) {
      queued = false;
      began = performance.now();
      if (log !== null) {
        openLog();
      }
    }
    if ([...progress.children].some((item) => item.dataset.step === step.step)) {
      show(step.step);
    }
    if (step.phase !== 'pending' && step.phase !== 'deploying') {
      events.close();
      setTimeout(() => location.reload(), pause);
    }
  });
  events.addEventListener('error', () => {
    if (events.readyState === EventSource.CLOSED) { // the browser does not reconnect
      setTimeout(() => location.reload(), 5000);
    }
  });
})();
