// socket-server under PM2:
//
//   cd /opt/socket-server && pm2 start deploy/pm2/ecosystem.config.js && pm2 save
//
// Secrets are in /opt/socket-server/.env (mode 600), which the server reads by itself. Values in `env` below win over that file.

const path = require('path');

const root = path.resolve(__dirname, '../..');

// PM2 stops a process with SIGINT, on which gunicorn closes every connection at once; SIGTERM drains them. This shell turns PM2's
// signal into SIGTERM and ends with gunicorn's exit status.
const run = `
  trap 'kill -TERM "$pid"' INT TERM
  .venv/bin/gunicorn wsgi:app & pid=$!
  wait "$pid"; status=$?
  while kill -0 "$pid" 2>/dev/null; do wait "$pid"; status=$?; done
  exit "$status"
`;

module.exports = {
  apps: [
    {
      name: 'socket-server',
      cwd: root,
      script: '/bin/sh',
      args: ['-c', run],
      interpreter: 'none',

      // Always one: several PM2 instances would need the same port. For more processes: REDIS_URL and WEB_CONCURRENCY.
      exec_mode: 'fork',
      instances: 1,

      // The signal goes to the shell only. kill_timeout is in milliseconds: at least 10 s above DRAIN_SECONDS (10 s).
      treekill: false,
      kill_timeout: 30000,

      // Exit status 2: a setting is wrong, and a restart does not help; the log names it. After other failures, give up after 5
      // starts that did not last 10 seconds.
      autorestart: true,
      stop_exit_codes: [2],
      min_uptime: 10000,
      max_restarts: 5,

      watch: false,
      merge_logs: true,
      time: false,

      env: {
        // HOST: '127.0.0.1',
        // CLIENT_URL: 'https://app.example.com',
        // TRUSTED_PROXIES: '127.0.0.1',
        // LOG_FORMAT: 'json',
      },
    },
  ],
};
