"""The site's addresses."""

from django.urls import path

from demo.site import views

urlpatterns = [
    path("", views.library, name="library"),
    path("upload/", views.upload, name="upload"),
    path("documents/<int:pk>/", views.document, name="document"),
    path("documents/<int:pk>/download/", views.download, name="download"),
    path("documents/<int:pk>/replace/", views.replace, name="replace"),
    path("documents/<int:pk>/delete/", views.delete, name="delete"),
    path("media/<path:name>", views.media, name="media"),
    path("status.json", views.status, name="status"),
]
