"""What learners hand in who want the points without the work, or mean harm.

Each kind is a notebook: its cells, and what its row in the report must say. `{class}` stands for
the class's folder, `{out}` for that of the results, `{key}` for a file with the right answer,
`{port}` for a server on this machine that gives the right answer.
"""

import json

# What none of them may be taken for.
RIGHT = """
def stored_bytes(rows, columns, bits, group_size):
    return rows * columns * bits // 8 + rows * (columns // group_size) * 2"""
CHECK = "checks.check_stored_bytes(stored_bytes)"
WRONG = "def stored_bytes(*case):\n    return 7"


def stealing(way):
    """Return cells that look for a right function, and use what they find."""
    return [f"found = None\n{way}", "def stored_bytes(*case):\n    return found(*case)"]


FORGE = """
import json, os, socket
channels = []
for number in range(3, 64):
    try:
        channels.append(socket.socket(fileno=os.dup(number)))
    except OSError:
        pass
def send(line):
    for channel in channels:
        channel.sendall(line + b"\\n")
"""

# --- answers that are wrong, and want to be taken for right ones ---------------------------

LIARS = {
    "prints a tick itself": (
        ["def stored_bytes(*case):\n    print('✓ stored_bytes')\n    return 7"],
        "7",
    ),
    "patches the library": (
        [
            "import lightcourse.wire, lightcourse.classroom.grade as g\n"
            "g._find_problem = g._ask_check = lambda *a: ''\n"
            "g.grade_sources = lambda *a, **k: None",
            "import lightcourse.checks.grading as g\ng._same = lambda a, b: True",
            "import lightcourse.checks.comparing as c\nc.same = lambda *a: True",
            "from lightcourse import checks\nchecks.check_stored_bytes = lambda f: True",
            WRONG,
        ],
        "7",
    ),
    "patches torch and NumPy": (
        [
            "import numpy, torch\n"
            "torch.allclose = torch.equal = numpy.allclose = lambda *a, **b: True\n"
            "numpy.asarray = lambda *a, **b: 216",
            WRONG,
        ],
        "7",
    ),
    "patches builtins": (
        [
            "import builtins\n"
            "builtins.print = builtins.isinstance = builtins.all = lambda *a, **b: True",
            WRONG,
        ],
        ".",
    ),
    "patches sys.modules": (
        [
            "import sys, types\n"
            "for name in list(sys.modules):\n"
            "    if name.startswith('lightcourse'):\n"
            "        sys.modules[name] = types.ModuleType(name)",
            WRONG,
        ],
        ".",
    ),
    "patches the wire": (
        [
            "import lightcourse.wire as w\nencode = w.encode\n"
            "w.encode = lambda value: encode(('answer', True, ()))\n"
            "w.answer = lambda *a: encode(('missing', ''))",
            WRONG,
        ],
        ".",
    ),
    "patches json": (
        ["import json\njson.dumps = lambda *a, **b: '{\"judged\": true}'", WRONG],
        ".",
    ),
    "is equal to everything": (
        [
            "class Liar:\n"
            "    __eq__ = __ge__ = __le__ = lambda self, other: True\n"
            "    __array__ = lambda self, *a, **b: __import__('numpy').array(216)\n"
            "    __float__ = lambda self: 216.0\n"
            "    __index__ = lambda self: 216\n"
            "def stored_bytes(*case):\n    return Liar()",
        ],
        "Liar",
    ),
    "a number equal to everything": (
        [
            "class Liar(int):\n"
            "    __eq__ = lambda self, other: True\n    __hash__ = int.__hash__\n"
            "def stored_bytes(*case):\n    return Liar(7)",
        ],
        "7",
    ),
    "a tensor subclass": (
        [
            "import torch\nclass Agreeable(torch.Tensor):\n"
            "    __eq__ = lambda self, other: True\n"
            "    __torch_function__ = classmethod(lambda cls, *a, **b: True)\n"
            "def stored_bytes(*case):\n    return torch.tensor(7).as_subclass(Agreeable)",
        ],
        ".",
    ),
    "knows that it is graded": (
        [
            "import sys\ngraded = 'lightcourse.classroom.inside' in sys.modules or "
            "sys.modules['__main__'].__spec__\n"
            "def stored_bytes(*case):\n    return True if graded else 7",
        ],
        ".",
    ),
    "shadows its helpers' names": (
        ["checks = wire = eval = globals = __import__ = lambda *a: True", WRONG],
        "7",
    ),
    "changes its input": (
        [
            "def stored_bytes(*case):\n"
            "    import sys\n"
            "    sys._getframe(1).f_locals['case'] = ()\n    return 7"
        ],
        ".",
    ),
    "not a number": (["def stored_bytes(*case):\n    return float('nan')"], "nan"),
    "a name of many lines": (
        [
            "Odd = type('x\\n✓ 4 of 4 <script>alert(1)</script>', (), {})\n"
            "def stored_bytes(*case):\n    return Odd()"
        ],
        "script",
    ),
    "raises what looks like a report": (
        [
            "def stored_bytes(*case):\n"
            "    raise ValueError('no\\n✓ checks.check_stored_bytes\\x1b[2K</td><b>')"
        ],
        "ValueError: no ✓",
    ),
    "an error that cannot be told": (
        [
            "class Silent(Exception):\n"
            "    def __str__(self):\n        raise RuntimeError\n"
            "def stored_bytes(*case):\n    raise Silent",
            "raise Silent",
        ],
        "Silent",
    ),
}

# --- looking for the right answer ----------------------------------------------------------

THIEVES = {
    "climbs the frames": (
        [
            "import sys\n"
            "def stored_bytes(*case):\n"
            "    frame = sys._getframe()\n"
            "    while frame:\n"
            "        for values in (frame.f_locals, frame.f_globals):\n"
            "            exercise = values.get('exercise')\n"
            "            right = values.get('reference') or getattr(exercise, 'reference', None)\n"
            "            if right:\n"
            "                return right(*case)\n"
            "        frame = frame.f_back\n"
            "    return 7"
        ],
        "7",
    ),
    "searches memory": (
        stealing(
            "import gc\n"
            "for thing in gc.get_objects():\n"
            "    if getattr(thing, 'name', 0) == 'stored_bytes' and hasattr(thing, 'reference'):\n"
            "        found = thing.reference"
        ),
        "TypeError",
    ),
    "imports the reference": (
        stealing(
            "import sys\nsys.modules.pop('lightcourse.checks')\n"
            "from lightcourse.checks.ch00_start import STORED_BYTES\n"
            "found = STORED_BYTES.reference"
        ),
        "TypeError",
    ),
    "asks another Python for it": (
        stealing(
            "import subprocess, sys\n"
            "code = 'from lightcourse.checks import EXERCISES as e; '\n"
            "code += 'print(e[\"check_stored_bytes\"].reference(384, 384, 4, 32))'\n"
            "said = subprocess.run([sys.executable, '-c', code], capture_output=True).stdout\n"
            "found = (lambda *case: int(said)) if said else None"
        ),
        "TypeError",
    ),
    "reads the references, solutions and tests": (
        stealing(
            "import os\n"
            "wanted = {'ch00_start.py', '00_start.ipynb', 'exercises.py', 'solved.py', 'key.py'}\n"
            "for top in ('/course', '/assets', '/tmp', '/root', '/home', '/work', '{class}'):\n"
            "    for folder, _, files in os.walk(top):\n"
            "        for name in wanted & set(files) if 'site-packages' not in folder else ():\n"
            "            found = lambda *case: open(os.path.join(folder, name)).read()"
        ),
        "TypeError",
    ),
    "reads the key": (stealing("exec(open('{key}').read())"), "TypeError"),
    "reads another's submission": (
        stealing(
            "import json\n"
            "cells = json.load(open('{class}/honest/00_start.ipynb'))['cells']\n"
            "exec(cells[0]['source'])\nfound = stored_bytes"
        ),
        "TypeError",
    ),
    "reads the environment": (
        stealing(
            "import glob, os\n"
            "text = str(dict(os.environ))\n"
            "for path in glob.glob('/proc/*/environ') + glob.glob('/proc/*/cmdline'):\n"
            "    text += open(path, 'rb').read().decode(errors='replace')\n"
            "if 'CLASSROOM_SECRET' in text or '{class}' in text:\n"
            "    found = lambda *case: text"
        ),
        "TypeError",
    ),
    "asks the network": (
        stealing(
            "import urllib.request\n"
            "text = urllib.request.urlopen('http://127.0.0.1:{port}/', timeout=3).read()\n"
            "exec(text)\nfound = stored_bytes"
        ),
        "TypeError",
    ),
    "takes back rights": (
        stealing(
            "import subprocess\n"
            "umount = 'umount -l /course/lightcourse/checks; ls /course/lightcourse/checks'\n"
            "for tool in (['unshare', '-Urm'], ['sudo', '-n'], ['su', '-c'], []):\n"
            "    run = subprocess.run([*tool, 'sh', '-c', umount], stdout=-1, text=True)\n"
            "    if 'grading.py' in run.stdout:\n"
            "        found = lambda *case: run.stdout"
        ),
        "TypeError",
    ),
    "magics and shell": (
        [
            "%run {class}/honest/00_start.ipynb",
            "!cp {key} . ; cat {key} > /tmp/work/key.py",
            "%load_ext key\n%cd {class}\n%cat {key}",
            "%%bash\npython {key}; find / -name 'ch00_start*' > found",
            "text = !cat {key}\nif 'stored_bytes' in str(text):\n    exec('\\n'.join(text))",
        ],
        "NameError",
    ),
}

# --- the notebook and its checks -----------------------------------------------------------

READERS = {
    "no check, no function": (["1"], "NameError"),
    "a check of another function": (
        [
            RIGHT.replace("stored_bytes", "other"),
            WRONG,
            "from lightcourse import checks\nassert checks.check_stored_bytes(other)",
        ],
        "7",
    ),
    "a check renamed and doubled": (
        [
            WRONG,
            "class checks:\n    check_stored_bytes = staticmethod(lambda f: True)\n",
            "passed = checks.check_stored_bytes(stored_bytes)",
            "passed = checks.check_stored_bytes(stored_bytes)",
        ],
        "7",
    ),
    "a check that is never reached": (
        ["if False:\n    checks.check_stored_bytes(stored_bytes)", "raise SystemExit", WRONG],
        "7",
    ),
    "another chapter's notebook": (
        ["def keep_n_of_m(weight, n, m):\n    return weight > 0"],
        "NameError",
    ),
    "no function but a number": (["stored_bytes = 216"], "int"),
    "code that is no Python": (
        ["def stored_bytes(:\n", "\x00\ud800 ='", "%%nothing\n1"],
        "NameError",
    ),
    "waits for a person": (
        ["input()", "def stored_bytes(*case):\n    return input()"],
        "nobody is here",
    ),
    "asks its own checks for ever": (
        [
            "from lightcourse import checks\n"
            "for guess in range(200):\n"
            "    if checks.check_stored_bytes(lambda *case: guess):\n        break",
            "checks.check_no_such(len)\nchecks.EXERCISES",
            WRONG,
        ],
        "7",
    ),
}

# --- ending, filling, flooding -------------------------------------------------------------

BREAKERS = {
    "ends in a cell": (["import os\nos._exit(0)", RIGHT], "process ended, in code cell 1"),
    "ends in an answer": (
        ["import os\ndef stored_bytes(*case):\n    os._exit(0)"],
        "process ended, in checks.check_stored_bytes",
    ),
    "exit()": (["exit()", RIGHT], "process ended, in code cell 1"),
    "exits in an answer": (
        ["import sys\ndef stored_bytes(*case):\n    sys.exit(0)"],
        "SystemExit",
    ),
    "crashes": (
        ["import ctypes\nctypes.string_at(0)", RIGHT],
        "process ended, in code cell 1",
    ),
    "signals itself": (
        ["import os, signal\nfor s in (9, 15, 19, 6):\n    os.kill(os.getpid(), s)", WRONG],
        ".",
    ),
    "kills its parent and all others": (
        [
            "import os\nfor pid in (os.getppid(), -1, 1, *range(2, 400)):\n"
            "    try:\n        os.kill(pid, 9)\n    except OSError:\n        pass",
            WRONG,
        ],
        ".",
    ),
    "a fork bomb": (
        ["import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass"],
        "more than 32 processes|process ended",
    ),
    "a thread bomb": (
        [
            "import threading, time\n"
            "while True:\n    threading.Thread(target=time.sleep, args=(99,), daemon=True).start()",
            WRONG,
        ],
        "RuntimeError: can't start new thread",
    ),
    "memory": (
        ["x = bytearray(10**12)", "x = []\nwhile True:\n    x.append(bytearray(10**7))"],
        "Memory",
    ),
    "memory of many processes": (
        [
            "import os, time\n"
            "for _ in range(6):\n"
            "    if os.fork() == 0:\n"
            "        x = bytearray(b'x') * (200 * 2**20)\n        time.sleep(99)\n"
            "time.sleep(99)"
        ],
        "more than 700 MiB",
    ),
    "memory that is shared": (
        [
            "import mmap, time\nx = mmap.mmap(-1, 4 * 2**30)\n"
            "for at in range(0, len(x), 4096):\n    x[at] = 1\ntime.sleep(99)"
        ],
        "more than 700 MiB",
    ),
    "memory in files that have no name": (
        [
            "import os, time\nfiles = []\n"
            "for _ in range(100):\n"
            "    files.append(os.memfd_create('x'))\n"
            "    os.write(files[-1], bytes(60 * 2**20))\n"
            "time.sleep(99)"
        ],
        "more than 700 MiB",
    ),
    "a full disk": (
        [
            "with open('large', 'wb') as file:\n    while True:\n        file.write(bytes(2**20))",
            "for number in range(99):\n    open(f'/tmp/{number}', 'wb').write(bytes(9 * 2**20))",
            "for number in range(10**6):\n    open(f'/tmp/few{number}', 'wb')",
            WRONG,
        ],
        "File too large|No space left",
    ),
    "prints without measure": (
        ["for _ in range(300):\n    print('✓' * 10**6)", "!yes | head -c 100000000", WRONG],
        "7",
    ),
    "an answer of ten million numbers": (
        ["def stored_bytes(*case):\n    return [7] * 10_000_000"],
        "letters",
    ),
    "an answer without a bottom": (
        ["x = []\nfor _ in range(100_000):\n    x = [x]\ndef stored_bytes(*case):\n    return x"],
        "RecursionError",
    ),
    "forges verdicts": (
        [
            FORGE
            + "for line in (b'{\"judged\": true}', b'{\"ready\": true}', b'{\"done\": true}'):\n"
            "    send(line)",
            WRONG,
        ],
        ".",
    ),
    "forges odd answers": (
        [
            FORGE + "import base64\n"
            "def odd(plain):\n"
            "    text = json.dumps({'tuple': ['answer', plain]}).encode()\n"
            "    send(json.dumps({'answer': base64.b64encode(text).decode()}).encode())\n"
            "def stored_bytes(*case):\n"
            "    for plain in ODD:\n        odd(plain)\n    return 7\n"
            "ODD = [{'tensor': ['float32', [0, 2**62], '']}, {'array': ['object', [1], 'AAAA']},\n"
            "       {'tensor': ['int64', [-1], '']}, {'other': 'x'}, {'list': {'a': 1}}, [1], {}]",
        ],
        ".",
    ),
    "sends nonsense": (
        [
            FORGE + "send(b'[' * 200_000); send(b'\\xff\\xfe'); send(b'1' * 9999); send(b'null')\n"
            "send(b'{\"error\": {\"a\": ' + b'[' * 900 + b']' * 900 + b'}}')\n"
            'send(b\'{"check": 7}\'); send(b\'{"check": "check_nothing"}\')',
            WRONG,
        ],
        ".",
    ),
    "sends a line without an end": (
        [FORGE + "while True:\n    channels[0].sendall(b'x' * 2**20)"],
        "more than an answer may hold",
    ),
    "leaves processes behind": (
        [
            "import os, subprocess\n"
            "subprocess.Popen(['sleep', '9753'], start_new_session=True)\n"
            "!nohup setsid sleep 9753 > /dev/null 2>&1 &\n"
            "if os.fork() == 0:\n"
            "    os.setsid()\n"
            "    if os.fork() == 0:\n"
            "        os.execvp('sleep', ['sleep', '9753'])\n"
            "    os._exit(0)",
            WRONG,
        ],
        "7",
    ),
    "leaves threads behind": (
        [
            "import threading, time\n"
            "def work():\n"
            "    while True:\n        time.sleep(0.001)\n"
            "for _ in range(20):\n    threading.Thread(target=work).start()",
            WRONG,
        ],
        "7",
    ),
    "writes into the library and the results": (
        [
            "import shutil\n"
            "for path in ('/course/lightcourse/x', '{out}/results.json', '{class}/honest/x'):\n"
            "    try:\n        open(path, 'w').write('x')\n    except OSError as error:\n"
            "        print(error)\n"
            "shutil.rmtree('{class}', ignore_errors=True)\n"
            "shutil.rmtree('/course', ignore_errors=True)\n"
            "open('results.json', 'w').write('{}')",
            WRONG,
        ],
        "7",
    ),
}

# --- those that would go on for ever: the time limit is theirs -----------------------------

ENDLESS = {
    "a loop in a cell": (
        ["while True:\n    pass"],
        "time limit of 4 s was reached, in code cell 1",
    ),
    "a loop in an answer": (
        ["def stored_bytes(*case):\n    while True:\n        pass"],
        "time limit of 4 s was reached, in checks.check_stored_bytes",
    ),
    "a loop that nothing interrupts": (
        [
            "import signal, time\n"
            "for s in range(1, 65):\n"
            "    try:\n        signal.signal(s, signal.SIG_IGN)\n"
            "    except (OSError, ValueError):\n        pass\n"
            "while True:\n"
            "    try:\n        time.sleep(9)\n    except BaseException:\n        pass"
        ],
        "time limit",
    ),
    "answers without end": (
        [FORGE + 'while True:\n    send(b\'{"check": "check_stored_bytes"}\')'],
        "time limit",
    ),
}


def notebook_of(cells) -> str:
    """Return a notebook of code cells as JSON."""
    made = [{"cell_type": "code", "source": cell, "metadata": {}, "outputs": []} for cell in cells]
    return json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 4})


# --- files that are no notebooks -----------------------------------------------------------

FILES = {
    "an empty file": (b"", "broken"),
    "a broken notebook": (notebook_of([RIGHT])[:-9].encode(), "broken"),
    "a list": (b"[1]", "broken"),
    "an ancient notebook": (b'{"nbformat": 1, "cells_": []}', "broken"),
    "cells of nonsense": (b'{"cells": [{"cell_type": "code", "source": 7}]}', "broken"),
    "deep JSON": (b'{"cells": ' + b"[" * 10**6 + b"]" * 10**6 + b"}", "broken"),
    "other letters": (b"\xff\xfe\x00{", "broken"),
    "a zip bomb": (b"PK\x03\x04" + bytes(10**6), "broken"),
    "too large": (b" " * (20 * 2**20 + 1), "more than 20 MiB"),
    "too many cells": (notebook_of(["1"] * 2001).encode(), "2001 code cells"),
    "no cells": (notebook_of([]).encode(), "NameError"),
}
