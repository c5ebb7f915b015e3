#!/usr/bin/env bash
# Versions: django-grip 3.5.2, Django 5.2 (Python 3.11). Needs Python 3 with venv.
# Guess:    An application that only has GRIP proxies verified, and publishes without a key, sets "verify_key" (GRIP_VERIFY_KEY) and no "key".
# Seen:     Each request with a Grip-Sig is a KeyError then, and the answer 500: the middleware looks "key" up even where "verify_key" is there. With both
#           it verifies by "verify_key". Who signs for such an application (WebSocketGripKey here) makes all of its requests fail.
set -uo pipefail
folder=$(mktemp -d) || exit 2
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv" && "$folder/venv/bin/pip" install -q django-grip==3.5.2 'Django>=5.2,<5.3' || exit 2
cat >"$folder/seen.py" <<'PYTHON'
import sys
import time

import django
import jwt
from django.conf import settings

key = "a key of thirty-two bytes or more"
proxy = {"control_uri": "http://127.0.0.1:1", "verify_key": key}
if "both" in sys.argv:
    proxy["key"] = "another key of thirty-two bytes or more"
settings.configure(
    ALLOWED_HOSTS=["*"], MIDDLEWARE=["django_grip.GripMiddleware"], ROOT_URLCONF=__name__, SECRET_KEY="x", GRIP_PROXIES=[proxy]
)
django.setup()

from django.http import HttpResponse
from django.test import Client
from django.urls import path

urlpatterns = [path("", lambda request: HttpResponse(str(request.grip.signed)))]
signature = jwt.encode({"iss": "pushpin", "exp": int(time.time()) + 60}, key, algorithm="HS256")
try:
    print("signed:", Client().get("/", headers={"Grip-Sig": signature}).content.decode())
except Exception as error:
    print(type(error).__name__, error)
PYTHON
alone=$("$folder/venv/bin/python" "$folder/seen.py" alone 2>/dev/null)
both=$("$folder/venv/bin/python" "$folder/seen.py" both 2>/dev/null)
printf 'verify_key alone: %s\nverify_key and key: %s\n' "$alone" "$both"
[ "$alone" = "KeyError 'key'" ] && [ "$both" = "signed: True" ]
