# Read by `flask run` in development: the same port as everywhere else.
FLASK_RUN_PORT=3001
