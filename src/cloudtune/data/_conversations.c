/* Plain conversations, one a line, checked and written in their canonical form in one pass over the bytes.

   rows(data, at, pieces) -> (end, joined, lines, escaped, written, hashes, prompts, sizes, answers)

   Goes through whole lines of `data` from `at` on, up to the first line that is not a plain conversation as
   record_checks.is_plain has it, or not written as rows of conversations mostly are; that line and all behind it are
   left to Python. What comes out is what Python makes of the same lines: tests compare them.

   Nothing is read beyond `data`, and no byte is written without looking whether there is room. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <stdint.h>
#include <string.h>

typedef unsigned char Byte;

typedef struct {
    Byte *at;
    size_t used, room;
} Buffer;

enum { SYSTEM, USER, ASSISTANT, NOBODY };
/* What is written before a text, by who speaks and where, and behind the last one: the fields of a Weave. */
enum { FIRST_SYSTEM, FIRST_USER, AFTER_SYSTEM, AGAIN, ANSWERED, END, PIECES };
enum { PLAIN = 1, OTHER = 0, FAILED = -1 };

typedef struct {
    const char *at;
    size_t size;
} Piece;

#define PIECE(text) {text, sizeof(text) - 1}
static const Piece NAMES[] = {PIECE("\"system\""), PIECE("\"user\""), PIECE("\"assistant\"")};
static const Piece HEADS[] = {
    PIECE("{\"role\":\"system\",\"content\":"), PIECE("{\"role\":\"user\",\"content\":"),
    PIECE("{\"role\":\"assistant\",\"content\":"),
};
static const Piece OPENING = PIECE("{\"messages\":["), CLOSING = PIECE("]}\n");

typedef struct {
    const Byte *p, *end;
    Buffer joined, written;
    Piece pieces[PIECES];
    int weaving, escaped;
} Scan;

typedef struct {
    size_t start, end;   /* the canonical line, without its end */
    size_t prompt;       /* where the last answer's key is */
    size_t answer;       /* bytes of the last text, with its quotes */
} Row;

static int grow(Buffer *buffer, size_t more) {
    size_t room = buffer->room + buffer->room / 2 + more;
    Byte *at = PyMem_Realloc(buffer->at, room);
    if (at == NULL) {
        PyErr_NoMemory();
        return FAILED;
    }
    buffer->at = at;
    buffer->room = room;
    return PLAIN;
}

static int put(Buffer *buffer, const void *bytes, size_t size) {
    if (buffer->room - buffer->used < size && grow(buffer, size) < 0) return FAILED;
    memcpy(buffer->at + buffer->used, bytes, size);
    buffer->used += size;
    return PLAIN;
}

static void skip_space(Scan *scan) {
    while (scan->p < scan->end && (*scan->p == ' ' || *scan->p == '\t' || *scan->p == '\r')) scan->p++;
}

static int is_next(Scan *scan, const char *text, size_t size) {
    if ((size_t)(scan->end - scan->p) < size || memcmp(scan->p, text, size) != 0) return 0;
    scan->p += size;
    return 1;
}

#define NEXT(text) is_next(scan, text, sizeof(text) - 1)

static int token(Scan *scan, char mark) {
    skip_space(scan);
    if (scan->p == scan->end || *scan->p != (Byte)mark) return 0;
    scan->p++;
    skip_space(scan);
    return 1;
}

/* Whether str.isspace() holds for the character. */
static int is_blank(uint32_t c) {
    if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x1f);
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029
        || c == 0x202f || c == 0x205f || c == 0x3000;
}

/* The character of several bytes at p and their number; 0 if this is no UTF-8. */
static int decode(const Byte *p, const Byte *end, uint32_t *c) {
    static const uint32_t LEAST[] = {0, 0, 0x80, 0x800, 0x10000};
    int size = *p >= 0xf0 ? 4 : *p >= 0xe0 ? 3 : 2;
    if (*p < 0xc2 || *p > 0xf4 || end - p < size) return 0;
    *c = *p & (0xff >> (size + 1));
    for (int i = 1; i < size; i++) {
        if ((p[i] & 0xc0) != 0x80) return 0;
        *c = *c << 6 | (p[i] & 0x3f);
    }
    return *c >= LEAST[size] && *c <= 0x10ffff && (*c < 0xd800 || *c > 0xdfff) ? size : 0;
}

/* Four hexadecimal digits, or -1. */
static int32_t four_digits(const Byte *p, const Byte *end) {
    int32_t value = 0;
    if (end - p < 4) return -1;
    for (int i = 0; i < 4; i++) {
        Byte c = p[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
        if (digit < 0) return -1;
        value = value << 4 | digit;
    }
    return value;
}

/* A character in its canonical form; at most 6 bytes. */
static size_t encode(uint32_t c, Byte *to, int *escaped) {
    static const char HEX[] = "0123456789abcdef";
    static const char SHORT[] = {['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r', ['"'] = '"',
                                 ['\\'] = '\\'};
    if (c < sizeof SHORT && SHORT[c]) {
        to[0] = '\\';
        to[1] = (Byte)SHORT[c];
        *escaped |= c == '\b' || c == '\f';
        return 2;
    }
    if (c < 0x20) {
        memcpy(to, "\\u00", 4);
        to[4] = (Byte)HEX[c >> 4];
        to[5] = (Byte)HEX[c & 15];
        *escaped = 1;
        return 6;
    }
    if (c < 0x80) {
        to[0] = (Byte)c;
        return 1;
    }
    if (c < 0x800) {
        to[0] = (Byte)(0xc0 | c >> 6);
        to[1] = (Byte)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        to[0] = (Byte)(0xe0 | c >> 12);
        to[1] = (Byte)(0x80 | (c >> 6 & 0x3f));
        to[2] = (Byte)(0x80 | (c & 0x3f));
        return 3;
    }
    to[0] = (Byte)(0xf0 | c >> 18);
    to[1] = (Byte)(0x80 | (c >> 12 & 0x3f));
    to[2] = (Byte)(0x80 | (c >> 6 & 0x3f));
    to[3] = (Byte)(0x80 | (c & 0x3f));
    return 4;
}

/* The character that an escape stands for, and the escape's bytes; 0 if it is none. */
static int unescape(const Byte *p, const Byte *end, uint32_t *c) {
    static const char PLAINLY[] = "\"\\/bfnrt", MEANT[] = "\"\\/\b\f\n\r\t";
    if (end - p < 2) return 0;
    if (p[1] != 'u') {
        const char *found = p[1] ? strchr(PLAINLY, p[1]) : NULL;
        if (found == NULL) return 0;
        *c = (uint32_t)MEANT[found - PLAINLY];
        return 2;
    }
    int32_t high = four_digits(p + 2, end);
    if (high < 0 || (high >= 0xdc00 && high <= 0xdfff)) return 0;
    *c = (uint32_t)high;
    if (high < 0xd800 || high > 0xdbff) return 6;
    if (end - p < 12 || p[6] != '\\' || p[7] != 'u') return 0;
    int32_t low = four_digits(p + 8, end);
    if (low < 0xdc00 || low > 0xdfff) return 0;
    *c = 0x10000 + (((uint32_t)high - 0xd800) << 10) + ((uint32_t)low - 0xdc00);
    return 12;
}

/* Whether one of eight bytes is a quote, a backslash, a control character or no ASCII. */
static int is_special(uint64_t bytes) {
    const uint64_t ones = UINT64_C(0x0101010101010101), highs = ones << 7;
    uint64_t quote = bytes ^ ones * '"', slash = bytes ^ ones * '\\';
    uint64_t found = (bytes - ones * 0x20) | (quote - ones) | (slash - ones) | bytes;
    return (found & highs) != 0; /* may be wrong the one way: then the bytes are looked at one by one */
}

/* The text that begins at the quote p, copied in its canonical form with its quotes. */
static int text(Scan *scan) {
    const Byte *p = scan->p, *end = scan->end;
    Buffer *out = &scan->joined;
    int said = 0;
    if (p == end || *p != '"') return OTHER;
    /* The canonical form is never longer than the text, and a step writes at most 8 bytes. */
    size_t most = (size_t)(end - p) + 8;
    if (out->room - out->used < most && grow(out, most) < 0) return FAILED;
    Byte *to = out->at + out->used;
    *to++ = *p++;
    for (;;) {
        while (end - p >= 8) {
            uint64_t eight;
            memcpy(&eight, p, 8);
            if (is_special(eight)) break;
            if (!said)
                for (int i = 0; i < 8; i++) said |= p[i] != ' ';
            memcpy(to, p, 8);
            to += 8;
            p += 8;
        }
        for (int i = 0; i < 8; i++) {
            uint32_t c;
            int size;
            if (p == end || *p < 0x20) return OTHER;
            if (*p == '"') {
                *to++ = *p++;
                scan->p = p;
                out->used = (size_t)(to - out->at);
                return said ? PLAIN : OTHER;
            }
            if (*p == '\\') {
                if ((size = unescape(p, end, &c)) == 0) return OTHER;
                to += encode(c, to, &scan->escaped);
            } else if (*p < 0x80) {
                size = 1;
                c = *p;
                *to++ = *p;
            } else {
                if ((size = decode(p, end, &c)) == 0) return OTHER;
                memcpy(to, p, (size_t)size);
                to += size;
            }
            if (!said) said = !is_blank(c);
            p += size;
        }
    }
}

/* What a format writes before the text of this turn, and the text, which was just copied. */
static int weave(Scan *scan, int before, int role, size_t start) {
    int place = role == ASSISTANT ? ANSWERED : role == SYSTEM ? FIRST_SYSTEM
        : before == NOBODY ? FIRST_USER : before == SYSTEM ? AFTER_SYSTEM : AGAIN;
    if (put(&scan->written, scan->pieces[place].at, scan->pieces[place].size) < 0) return FAILED;
    return put(&scan->written, scan->joined.at + start, scan->joined.used - start);
}

static int turn(Scan *scan, int *before, Row *row) {
    int role = SYSTEM;
    if (!token(scan, '{') || !NEXT("\"role\"") || !token(scan, ':')) return OTHER;
    while (role != NOBODY && !is_next(scan, NAMES[role].at, NAMES[role].size)) role++;
    /* A system speaks first or not at all, then the user and the assistant in turns. */
    int fits = role == SYSTEM ? *before == NOBODY : role == USER ? *before != USER : role == ASSISTANT && *before == USER;
    if (!fits || !token(scan, ',') || !NEXT("\"content\"") || !token(scan, ':')) return OTHER;
    row->prompt = scan->joined.used + 1;
    if (put(&scan->joined, HEADS[role].at, HEADS[role].size) < 0) return FAILED;
    size_t start = scan->joined.used;
    int found = text(scan);
    if (found != PLAIN) return found;
    row->answer = scan->joined.used - start;
    if (scan->weaving && weave(scan, *before, role, start) < 0) return FAILED;
    *before = role;
    return token(scan, '}') && put(&scan->joined, "}", 1) > 0 ? PLAIN : PyErr_Occurred() ? FAILED : OTHER;
}

/* One line. Of one that is not ours something may have been written, which `go_through` takes back. */
static int row(Scan *scan, Row *row) {
    int before = NOBODY, found;
    row->start = scan->joined.used;
    if (!NEXT("{")) return OTHER;
    skip_space(scan);
    if (!NEXT("\"messages\"") || !token(scan, ':') || !token(scan, '[')) return OTHER;
    if (put(&scan->joined, OPENING.at, OPENING.size) < 0) return FAILED;
    for (;;) {
        if ((found = turn(scan, &before, row)) != PLAIN) return found;
        if (!token(scan, ',')) break;
        if (put(&scan->joined, ",", 1) < 0) return FAILED;
    }
    if (before != ASSISTANT || !token(scan, ']') || !token(scan, '}')) return OTHER;
    if (scan->p < scan->end && *scan->p++ != '\n') return OTHER;
    if (put(&scan->joined, CLOSING.at, CLOSING.size) < 0) return FAILED;
    row->end = scan->joined.used - 1;
    if (scan->weaving && put(&scan->written, scan->pieces[END].at, scan->pieces[END].size) < 0) return FAILED;
    return PLAIN;
}

/* What is told of each row. */
typedef struct {
    PyObject *lines;
    Buffer hashes, prompts, sizes, answers;
} Told;

static int hash_of(Buffer *to, PyObject *bytes) {
    int64_t hash = bytes == NULL ? -1 : (int64_t)PyObject_Hash(bytes);
    return bytes == NULL || PyErr_Occurred() ? FAILED : put(to, &hash, sizeof hash);
}

static int tell(Told *told, const Scan *scan, const Row *row) {
    const char *start = (const char *)scan->joined.at + row->start;
    uint32_t size = (uint32_t)(row->end - row->start), answer = (uint32_t)row->answer;
    PyObject *line = PyBytes_FromStringAndSize(start, (Py_ssize_t)size);
    PyObject *prompt = PyBytes_FromStringAndSize(start, (Py_ssize_t)(row->prompt - row->start));
    int good = hash_of(&told->hashes, line) > 0 && hash_of(&told->prompts, prompt) > 0
        && put(&told->sizes, &size, sizeof size) > 0 && put(&told->answers, &answer, sizeof answer) > 0
        && PyList_Append(told->lines, line) == 0;
    Py_XDECREF(line);
    Py_XDECREF(prompt);
    return good ? PLAIN : FAILED;
}

static PyObject *bytes_of(const Buffer *buffer) {
    return PyBytes_FromStringAndSize((const char *)buffer->at, (Py_ssize_t)buffer->used);
}

/* Line after line, up to the first that is not ours. Gives where that begins, or -1 for an error. */
static Py_ssize_t go_through(Scan *scan, Told *told, const Byte *data) {
    const Byte *stop = scan->p;
    while (scan->p < scan->end) {
        Row found;
        size_t joined = scan->joined.used, written = scan->written.used;
        int escaped = scan->escaped;
        int good = row(scan, &found);
        if (good == FAILED || (good == PLAIN && tell(told, scan, &found) < 0)) return -1;
        if (good == OTHER) {
            scan->joined.used = joined;
            scan->written.used = written;
            scan->escaped = escaped;
            break;
        }
        stop = scan->p;
    }
    return stop - data;
}

static int take_pieces(Scan *scan, PyObject *pieces) {
    if (pieces == Py_None) return 1;
    if (!PyTuple_Check(pieces) || PyTuple_Size(pieces) != PIECES) {
        PyErr_SetString(PyExc_TypeError, "pieces: a tuple of six bytes objects, or None");
        return 0;
    }
    for (int i = 0; i < PIECES; i++) {
        char *at;
        Py_ssize_t size;
        if (PyBytes_AsStringAndSize(PyTuple_GetItem(pieces, i), &at, &size) < 0) return 0;
        scan->pieces[i].at = at;
        scan->pieces[i].size = (size_t)size;
    }
    scan->weaving = 1;
    return 1;
}

static PyObject *rows(PyObject *module, PyObject *arguments) {
    PyObject *data, *pieces, *result = NULL;
    Py_ssize_t at, size;
    char *bytes;
    Scan scan = {0};
    Told told = {0};
    (void)module;
    if (!PyArg_ParseTuple(arguments, "SnO:rows", &data, &at, &pieces)) return NULL;
    if (PyBytes_AsStringAndSize(data, &bytes, &size) < 0 || !take_pieces(&scan, pieces)) return NULL;
    if (at < 0 || at > size) {
        PyErr_SetString(PyExc_ValueError, "at: not within the data");
        return NULL;
    }
    scan.p = (const Byte *)bytes + at;
    scan.end = (const Byte *)bytes + size;
    told.lines = PyList_New(0);
    /* Room for the whole canonical form at once: it is never longer than what it is made of, but for a last line's end. */
    if (told.lines != NULL && grow(&scan.joined, (size_t)(size - at) + 16) > 0) {
        Py_ssize_t end = go_through(&scan, &told, (const Byte *)bytes);
        if (end >= 0) {
            PyObject *written = scan.weaving ? bytes_of(&scan.written) : (Py_INCREF(Py_None), Py_None);
            result = Py_BuildValue(
                "nNNNNNNNN", end, bytes_of(&scan.joined), told.lines, PyBool_FromLong(scan.escaped), written,
                bytes_of(&told.hashes), bytes_of(&told.prompts), bytes_of(&told.sizes), bytes_of(&told.answers));
            told.lines = NULL;
        }
    }
    Py_XDECREF(told.lines);
    PyMem_Free(scan.joined.at);
    PyMem_Free(scan.written.at);
    PyMem_Free(told.hashes.at);
    PyMem_Free(told.prompts.at);
    PyMem_Free(told.sizes.at);
    PyMem_Free(told.answers.at);
    return result;
}

static PyMethodDef METHODS[] = {
    {"rows", rows, METH_VARARGS, "rows(data, at, pieces): see the head of the source, and plain_blocks.py."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot SLOTS[] = {{0, NULL}};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT, "cloudtune.data._conversations", NULL, 0, METHODS, SLOTS, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__conversations(void) {
    return PyModuleDef_Init(&MODULE);
}
