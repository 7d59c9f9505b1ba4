"""What a searched answer rests on, as Gemini's `groundingMetadata`.

Pure. Indices of segments count bytes of UTF-8, the end one past the last, as Gemini defines them; a segment is the text
that a citation stands behind, back to the citation before it or to the beginning of the line. There is no
`searchEntryPoint`: that is a widget of Google's search.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Json = dict[str, Any]


def grounding(
    text: str, annotations: Iterable[Mapping[str, Any]], found: Mapping[str, Any], *, part_index: int = 0
) -> Json:
    """The metadata of `text`, or nothing. `annotations` are OpenAI's, `found` is of `citing.joined`."""
    places = [a["url_citation"] for a in annotations if a.get("type") == "url_citation"]
    titles = {place["url"]: place.get("title") for place in places}
    for page in found.get("search_results") or ():
        titles.setdefault(page["url"], page.get("title"))
    queries = found.get("search_queries") or []
    if not titles and not queries:
        return {}
    metadata: Json = {"webSearchQueries": list(queries)}
    if titles:
        metadata["groundingChunks"] = [{"web": {"uri": url, "title": title or url}} for url, title in titles.items()]
    if places:
        metadata["groundingSupports"] = _supports(text, places, list(titles), part_index)
    return metadata


def _supports(text: str, places: Iterable[Mapping[str, Any]], urls: list[str], part_index: int) -> list[Json]:
    supports: list[Json] = []
    done = 0
    for place in places:
        begin, end, chunk = place["start_index"], place["end_index"], urls.index(place["url"])
        if supports and begin == done:
            supports[-1]["groundingChunkIndices"].append(chunk)
        else:
            start = max(done, text.rfind("\n", 0, begin) + 1)
            claim = text[start:begin].rstrip() or text[start:end]
            start_bytes = len(text[:start].encode())
            segment = {"startIndex": start_bytes, "endIndex": start_bytes + len(claim.encode()), "text": claim}
            if part_index:
                segment["partIndex"] = part_index
            supports.append({"segment": segment, "groundingChunkIndices": [chunk]})
        done = end
    return supports
