'use strict';
// Shows the time that is left as a countdown, and what changes. When the instance has
// ended, the page loads again, and then says why.
(() => {
  const texts = JSON.parse(document.getElementById('texts').textContent);
  const { lang } = document.documentElement;
  const locale = navigator.languages.find((language) => language.startsWith(lang)) ?? lang;
  const session = document.getElementById('session');
  const message = document.getElementById('message');
  const left = document.getElementById('left');
  const source = document.getElementById('source');
  const lastUse = document.getElementById('last-use');
  const expires = document.getElementById('expires'); // null if it has no max age
  const extend = document.getElementById('extend'); // null if it cannot be extended
  const sources = JSON.parse(document.getElementById('sources').textContent);
  // Another replica may be a moment behind. After a reload, the page pauses before the next one.
  const [navigation] = performance.getEntriesByType('navigation');
  const pause = navigation && navigation.type === 'reload' ? 5000 : 0;
  // The visitor's clock may be wrong.
  const ahead = Date.now() - Date.parse(session.dataset.now);
  let end = left === null ? NaN : Date.parse(document.getElementById('cull-at').dateTime);
  const two = (n) => String(n).padStart(2, '0');
  const show = () => {
    if (Number.isNaN(end)) {
      return;
    }
    const seconds = Math.max(0, Math.round((end + ahead - Date.now()) / 1000));
    const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
    left.textContent = seconds === 0 ? texts['it ends now'] : `${h}:${two(m)}:${two(s)}`;
  };
  const showUse = (time) => {
    lastUse.dateTime = time;
    const date = new Date(time);
    const today = date.toDateString() === new Date().toDateString();
    lastUse.textContent = today ? date.toLocaleTimeString(locale, { timeStyle: 'short' })
      : date.toLocaleString(locale, { dateStyle: 'medium', timeStyle: 'short' });
  };
  if (expires !== null) {
    expires.textContent = new Date(expires.dateTime).toLocaleString(locale, { dateStyle: 'medium', timeStyle: 'short' });
  }
  if (left !== null) {
    showUse(lastUse.dateTime);
    show();
    setInterval(show, 1000);
  }
  const events = new EventSource(session.dataset.events);
  const follow = (event) => {
    const state = JSON.parse(event.data);
    if (state.phase === 'failed' || state.phase === 'deleted' || (left === null && state['cull-at'] !== undefined)) {
      events.close();
      setTimeout(() => location.reload(), pause);
      return;
    }
    const text = event.type === 'warning' || state.message !== texts['Ready.'] ? state.message : '';
    if (message.textContent !== text) { // or it is read out again
      message.textContent = text;
      message.lang = state.lang ?? lang;
    }
    message.classList.toggle('warning', event.type === 'warning');
    if (left !== null && state['cull-at'] !== undefined) {
      end = Date.parse(state['cull-at']);
      if (expires !== null && extend !== null) {
        extend.hidden = end >= Date.parse(expires.dateTime);
      }
      showUse(state['last-activity']);
      source.textContent = sources[state['last-activity-source']] ?? state['last-activity-source'];
      show();
    }
  };
  events.addEventListener('progress', follow);
  events.addEventListener('warning', follow);
  events.addEventListener('error', () => {
    if (events.readyState === EventSource.CLOSED) { // the browser does not reconnect
      setTimeout(() => location.reload(), 5000);
    }
  });
})();
