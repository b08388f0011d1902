"""The page at `/`: says that the platform runs and where its doors are. The console takes this place when it comes."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response

from modelyard import __version__

_PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Modelyard</title>
<link rel="icon" href="/favicon.svg" type="image/svg+xml">
<style>
  body {{ margin: 0; min-height: 100vh; display: grid; place-items: center; background: #f4f5f7; color: #1d2430;
         font: 16px/1.6 system-ui, "Noto Sans KR", sans-serif; }}
  main {{ max-width: 34rem; margin: 1rem; padding: 2.5rem; background: #fff; border-radius: 12px;
         box-shadow: 0 1px 3px rgb(0 0 0 / .12); }}
  h1 {{ margin: 0 0 .25rem; font-size: 1.6rem; }}
  code {{ padding: .1rem .35rem; background: #eef0f4; border-radius: 4px; font-size: .92em; }}
  a {{ color: #1d5fd1; }}
  small {{ color: #5b6575; }}
  @media (prefers-color-scheme: dark) {{
    body {{ background: #14171c; color: #e4e7ec; }} main {{ background: #1d2129; }}
    code {{ background: #2a303b; }} a {{ color: #7fb0ff; }} small {{ color: #98a2b3; }}
  }}
</style>
</head>
<body>
<main>
<h1>Modelyard</h1>
<p>The platform is running. <span lang="ko">플랫폼이 실행 중입니다.</span></p>
<p>Use it from the command line (<code>modelyard --help</code>), from Python (<code>modelyard.sdk</code>) or through the
<a href="/docs">REST API</a>. <code>modelyard credentials</code> shows how to connect.</p>
<p lang="ko">명령줄(<code>modelyard --help</code>), Python(<code>modelyard.sdk</code>) 또는 <a href="/docs">REST API</a>로
사용할 수 있습니다. 접속 정보는 <code>modelyard credentials</code>로 확인합니다.</p>
<small>Version {__version__}</small>
</main>
</body>
</html>
"""
_ICON = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" fill="#1d5fd1"/>
<path d="M7 23V9l9 8 9-8v14" fill="none" stroke="#fff" stroke-width="3.2" stroke-linecap="round" stroke-linejoin="round"/></svg>
"""
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def create_router() -> APIRouter:
    """The routes `/` and `/favicon.svg`."""
    router = APIRouter()

    @router.get("/", include_in_schema=False)
    async def front_page() -> HTMLResponse:  # pyright: ignore[reportUnusedFunction]  # the decorator uses it
        """The page."""
        return HTMLResponse(_PAGE, headers=_HEADERS)

    @router.get("/favicon.svg", include_in_schema=False)
    async def icon() -> Response:  # pyright: ignore[reportUnusedFunction]  # the decorator uses it
        """The mark in the browser's tab."""
        return Response(_ICON, media_type="image/svg+xml", headers={"Cache-Control": "max-age=86400"})

    return router
