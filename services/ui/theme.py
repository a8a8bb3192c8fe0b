"""The page's look as a Gradio theme: fonts of the system, so that nothing is fetched; the rest is in static/page.css."""

import gradio as gr

_SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Noto Sans", "Arial", "sans-serif")
_MONO = ("ui-monospace", "SF Mono", "Cascadia Mono", "Roboto Mono", "DejaVu Sans Mono", "monospace")


def page_theme() -> gr.themes.Base:
    """The theme, for light and dark."""
    theme = gr.themes.Base(
        primary_hue=gr.themes.colors.indigo,
        secondary_hue=gr.themes.colors.indigo,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_lg,
        text_size=gr.themes.sizes.text_md,
        font=_SANS,
        font_mono=_MONO,
    )
    return theme.set(
        body_background_fill="#f5f6fa",
        body_background_fill_dark="#0d1017",
        block_background_fill="#ffffff",
        block_background_fill_dark="#151a23",
        block_border_width="0px",
        block_shadow="none",
        block_shadow_dark="none",
        block_label_background_fill="#ffffffcc",
        block_label_background_fill_dark="#151a23cc",
        block_title_text_weight="600",
        input_background_fill="#f7f8fb",
        input_background_fill_dark="#0d1017",
        input_border_color="#d9dee8",
        input_border_color_dark="#2b3341",
        border_color_primary="#e3e7ef",
        border_color_primary_dark="#262d3a",
        button_primary_background_fill="#4f46e5",
        button_primary_background_fill_hover="#4338ca",
        button_primary_background_fill_dark="#5b54f0",
        button_primary_background_fill_hover_dark="#6b65f5",
        button_primary_text_color="#ffffff",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_dark="#1b212c",
        button_secondary_background_fill_hover="#f3f4fb",
        button_secondary_background_fill_hover_dark="#232a37",
        button_secondary_border_color="#d9dee8",
        button_secondary_border_color_dark="#2b3341",
        button_border_width="1px",
        button_large_radius="10px",
        button_large_text_size="*text_md",
        button_large_padding="10px 18px",
        checkbox_label_background_fill="*input_background_fill",
        checkbox_label_background_fill_selected="*primary_50",
        checkbox_label_background_fill_selected_dark="#23244a",
        checkbox_label_border_width="1px",
        checkbox_label_border_color="*input_border_color",
        checkbox_label_border_color_selected="*primary_500",
        block_title_text_size="*text_sm",
        slider_color="#4f46e5",
        slider_color_dark="#7c77f7",
    )
