/* xml.h - a checker of the XML that we write: tags nest, attributes are quoted, entities are known, no NaN or Inf in an
 * attribute. */
#ifndef HYB_TEST_XML_H
#define HYB_TEST_XML_H
#include <ctype.h>
#include <string.h>

static inline const char *skip_name(const char *s) {
    while (isalnum((unsigned char)*s) || *s == '-' || *s == ':') s++;
    return s;
}

static inline const char *check_text(const char *s, const char *end) {
    for (; s < end; s++) {
        if (*s == '<' || *s == '"') return "markup character in text";
        if ((unsigned char)*s < 0x20 && *s != '\n' && *s != '\t') return "control character";
        if (*s == '&' && strncmp(s, "&lt;", 4) && strncmp(s, "&gt;", 4) && strncmp(s, "&amp;", 5) &&
            strncmp(s, "&quot;", 6))
            return "bare &";
    }
    return NULL;
}

static inline const char *check_tag(const char **at) {
    const char *s = skip_name(*at);
    while (*s == ' ') {
        const char *name = ++s;
        s = skip_name(s);
        if (s == name || s[0] != '=' || s[1] != '"') return "attribute without a quoted value";
        const char *close = strchr(s + 2, '"');
        if (!close) return "open quote";
        if (check_text(s + 2, close)) return "bad attribute value";
        if (strstr(name, "nan") && strstr(name, "nan") < close) return "NaN";
        if (strstr(name, "inf") && strstr(name, "inf") < close) return "Inf";
        s = close + 1;
    }
    *at = s;
    return NULL;
}

/* NULL, or what is wrong. */
static inline const char *check_xml(const char *s) {
    const char *stack[32];
    int depth = 0;
    while (*s) {
        const char *open = strchr(s, '<');
        const char *bad = check_text(s, open ? open : s + strlen(s));
        if (bad) return bad;
        if (!open) break;
        const char *name = open + 1 + (open[1] == '/');
        size_t n = (size_t)(skip_name(name) - name);
        if (!n) return "no tag name";
        s = name;
        if (open[1] == '/') {
            if (!depth || strncmp(stack[--depth], name, n) || isalnum((unsigned char)stack[depth][n]))
                return "tags do not match";
            s = name + n;
        } else {
            bad = check_tag(&s);
            if (bad) return bad;
            if (*s == '/') s++;
            else if (depth == 32) return "too deep";
            else stack[depth++] = name;
        }
        if (*s++ != '>') return "tag is not closed";
    }
    return depth ? "an element stays open" : NULL;
}

#endif
