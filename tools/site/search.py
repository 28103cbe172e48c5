"""A search that finds what readers type: both spellings, no small words.

Sphinx's English search, with one stem for "-ise" and "-ize", and without the words of
questions and single letters, in the index and in the browser alike. What a page should
be found by, whatever its title, stands in `book/_static/search.js`.
"""

import re

from sphinx.search.en import SearchEnglish

QUESTIONS = """
    about am an been can could did do does don from get had has have help how i it its
    just let me my need out should so some tell than them too use using want
    was we were what when where which who why work works would you your
"""
IZE = r"(?<=\w{3})iz(?=(?:e|ed|es|er|ers|ing|able|ation|ations)$)"


class CourseEnglish(SearchEnglish):
    """English as the readers of the course type it."""

    stopwords = SearchEnglish.stopwords | {
        *QUESTIONS.split(),
        *map(chr, range(97, 123)),
    }
    js_stemmer_code = (
        SearchEnglish.js_stemmer_code
        + f"""
const PorterStemmer = Stemmer;
Stemmer = function () {{
  const porter = new PorterStemmer();
  this.stemWord = (word) => porter.stemWord(word.replace(/{IZE}/, "is"));
}};
"""
    )

    def stem(self, word: str) -> str:
        """Reduce a word to its stem, the same for both spellings."""
        return super().stem(re.sub(IZE, "is", word.lower()))


def setup(app):
    """Take the place of Sphinx's English."""
    app.add_search_language(CourseEnglish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
