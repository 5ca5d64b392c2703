"""Documents made here: PDF and Word files, whole and broken."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

SENTENCES = (
    "The river rises in the hills and runs to the sea.",
    "Every spring the snow melts and the mills begin to turn.",
    "A bridge of stone was built where the road meets the water.",
    "Merchants came with salt, and left with cloth and grain.",
    "In the great flood of that year the lower town was lost.",
)


def paragraph(seed: int, sentences: int = 8) -> str:
    """Text that differs by seed."""
    return " ".join(f"{SENTENCES[(seed * 3 + i) % 5]} Note {seed}-{i}." for i in range(sentences))


def pdf_file(path: Path, pages: Sequence[str]) -> Path:
    """A PDF whose pages show these lines of ASCII."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", ""]
    kids: list[str] = []
    for text in pages:
        shown = "".join(
            f"({line.replace('(', '[').replace(')', ']')}) Tj 0 -14 Td "
            for line in text.split("\n")
        )
        stream = f"BT /F1 12 Tf 72 720 Td {shown}ET" if text else ""
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {len(objects)} 0 R "
            "/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>"
        )
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    data = b"%PDF-1.4\n"
    places: list[int] = []
    for number, one in enumerate(objects, 1):
        places.append(len(data))
        data += f"{number} 0 obj\n{one}\nendobj\n".encode()
    start = len(data)
    data += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    data += b"".join(f"{place:010d} 00000 n \n".encode() for place in places)
    data += (
        f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n".encode()
    )
    path.write_bytes(data)
    return path


def locked_pdf(path: Path, source: Path) -> Path:
    """The same behind a password."""
    import pypdf

    writer = pypdf.PdfWriter(clone_from=str(source))
    writer.encrypt("secret", algorithm="RC4-128")
    writer.write(str(path))
    return path


def word_file(path: Path, texts: Sequence[str], rows: Sequence[Sequence[str]] = ()) -> Path:
    """A Word document of paragraphs, with a table after the first."""
    import docx

    made = docx.Document()
    for number, text in enumerate(texts):
        made.add_paragraph(text)
        if number == 0 and rows:
            table = made.add_table(rows=0, cols=len(rows[0]))
            for row in rows:
                cells = table.add_row().cells
                for cell, value in zip(cells, row, strict=True):
                    cell.text = value
    made.save(str(path))
    return path


def bomb(path: Path) -> Path:
    """A package of 64 MB of zeros in 64 kB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as package:
        package.writestr("word/document.xml", b"\0" * (64 * 2**20))
    return path
