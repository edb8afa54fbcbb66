'use strict';
// The page shows each step. When the launch has ended, it loads the same address
// again, which then shows the application or says why there is none.
(() => {
  const progress = document.getElementById('progress');
  const message = document.getElementById('message');
  // Another replica may be a moment behind and serve this page again. After a reload,
  // the page pauses before the next one.
  const [navigation] = performance.getEntriesByType('navigation');
  const pause = navigation && navigation.type === 'reload' ? 2000 : 0;
  const events = new EventSource(progress.dataset.events);
  events.addEventListener('progress', (event) => {
    const step = JSON.parse(event.data);
    message.textContent = step.message;
    for (const item of progress.children) {
      if (item.dataset.phase === step.phase) {
        item.setAttribute('aria-current', 'step');
      } else {
        item.removeAttribute('aria-current');
      }
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
