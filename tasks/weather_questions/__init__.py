"""Questions about weather windows with true answers, beside what a vision model sees of each window.

Stages:

    weather_questions  questions.py

`facts` measures a window's fields, `words` phrases what may be asked, `asking` makes questions and answers of both.
"""
