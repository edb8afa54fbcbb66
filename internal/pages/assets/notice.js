'use strict';
// Shows times in the visitor's time zone and language, and loads or tries again by itself what
// can succeed later, while somebody looks at the page.
const { lang } = document.documentElement;
const locale = navigator.languages.find((language) => language.startsWith(lang)) ?? lang;
for (const time of document.querySelectorAll('time')) {
  time.textContent = new Date(time.dateTime).toLocaleString(locale, { dateStyle: 'long', timeStyle: 'short' });
}
const waits = document.getElementById('reload');
if (waits !== null) {
  let left = waits.dataset.seconds;
  setInterval(() => {
    left -= document.visibilityState === 'visible' ? 1 : 0;
    if (left === 0) {
      location.reload();
    }
  }, 1000);
}
(() => {
  const texts = JSON.parse(document.getElementById('texts').textContent);
  const form = document.querySelector('form[data-retry]');
  if (form === null) {
    return;
  }
  const button = form.querySelector('button');
  const message = document.getElementById('retry');
  // Many were refused at the same moment: they do not come back at the same moment.
  let left = Math.ceil(form.dataset.retry * (1 + Math.random() / 4));
  const timer = setInterval(() => {
    if (document.visibilityState !== 'visible') {
      return;
    }
    left--;
    if (left > 0) {
      message.textContent = left > 90
        ? texts['This page tries again by itself in %s minutes.'].replace('%s', Math.ceil(left / 60))
        : texts['This page tries again by itself in %s seconds.'].replace('%s', left);
      return;
    }
    form.requestSubmit();
  }, 1000);
  form.addEventListener('submit', () => {
    clearInterval(timer);
    message.textContent = texts['Launching …'];
    button.disabled = true;
  });
  addEventListener('pageshow', (event) => {
    if (event.persisted) { // the visitor came back
      clearInterval(timer);
      message.textContent = '';
      button.disabled = false;
    }
  });
})();
