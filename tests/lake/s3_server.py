"""An S3 server and nothing else: python s3_server.py PORT

`moto_server` looks through its two hundred services at every request.
"""

import logging
import sys

from moto.moto_server.werkzeug_app import create_backend_app
from werkzeug.serving import WSGIRequestHandler, run_simple

logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for every request
WSGIRequestHandler.protocol_version = "HTTP/1.1"  # connections are kept
run_simple("127.0.0.1", int(sys.argv[1]), create_backend_app("s3"), threaded=True)
